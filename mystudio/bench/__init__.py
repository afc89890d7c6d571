"""The benchmark: makes the figures of docs/benchmarks.md, with one resumable command for each table."""
