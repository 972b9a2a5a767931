"""Tasks, one data set a file."""
