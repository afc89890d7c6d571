"""Video, sound, pictures and cameras; untrusted files are decoded in a child process."""
