"""selfscan measures faces in real video. It contains no generator."""
