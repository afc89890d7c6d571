"""Measurements that concern the personal engine alone: its solvers, its tuning and its ceiling."""
