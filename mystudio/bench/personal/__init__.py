"""Measurements of the personal engine: its solvers, its tuning and its ceiling."""
