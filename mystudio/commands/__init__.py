"""The command line: one module for each group of commands, without logic of the stages."""
