"""The studio page: a server on this machine, and the rooms that a browser shows."""
