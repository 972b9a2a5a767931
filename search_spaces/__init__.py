"""Search spaces: grammars and the operations they are made of."""
