"""Ways to give up trials while they train, one a file."""
