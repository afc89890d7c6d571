"""Fuzz the manifest readers: python tests/fuzz/fuzz_manifest.py -max_total_time=600"""

from campaign import run

if __name__ == "__main__":
    run("manifest")
