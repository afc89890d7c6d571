"""selfscan: the eyes of the studio. Real video to measurements; knows no generator."""
