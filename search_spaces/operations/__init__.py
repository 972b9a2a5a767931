"""Operations: modules and the rules that place them, one family a file."""
