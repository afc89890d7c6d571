"""Synthetic people who do not exist, with exact truth: training images, demo clips and the benchmarks' truth."""
