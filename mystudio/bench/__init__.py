"""The benchmark: every figure of docs/benchmarks.md is made here, one resumable command a table."""
