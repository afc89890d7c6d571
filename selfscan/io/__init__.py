"""Video, sound, pictures and cameras; files of others are decoded in a child process."""
