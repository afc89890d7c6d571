"""Synthetic people with exact ground truth: training images, demo clips and benchmark clips."""
