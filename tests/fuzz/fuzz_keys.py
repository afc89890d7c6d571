"""Fuzz the keys readers: python tests/fuzz/fuzz_keys.py -max_total_time=600"""

from campaign import run

if __name__ == "__main__":
    run("keys")
