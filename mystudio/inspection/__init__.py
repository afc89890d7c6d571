"""Say in six lines what a file or folder is, and what mystudio would do with it."""
