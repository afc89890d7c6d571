"""Base generators: training, the inversion encoder, evaluation, and training runs on disk."""
