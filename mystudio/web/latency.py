"""How long a preview of an edit takes, from the slider's move to the picture's bytes in the server.

python -m mystudio.web.latency TAKE [--moves 100] [--edits 1 3]

For each number of edits: median and 95 % of the moves, wall-clock and processor time, in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from mystudio.web.preview import Previews
from selfscan.types import Array

WARM = 5  # moves that are not counted


def measure(take: Path, moves: int, edits: int) -> Array:
    """Move the last of so many sliders, each picture whole; [moves, 2] s: wall-clock and processor time."""
    previews, found = Previews(), list[tuple[float, float]]()
    try:
        facts = previews.open(take)
        names = facts["directions"][:edits]
        for number in range(moves + WARM):
            wish = [{"name": name, "strength": 0.7} for name in names[:-1]]
            wish.append({"name": names[-1], "strength": 2 * float(np.sin(number))})
            start = time.perf_counter()
            drawn = previews.draw(take, wish, len(facts["times"]) // 2, False)
            assert drawn is not None, "no other page asks"
            found.append((time.perf_counter() - start, drawn[0]["processor"]))
    finally:
        previews.close()
    return np.array(found[WARM:])


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("take", type=Path)
    options.add_argument("--moves", type=int, default=100)
    options.add_argument("--edits", type=int, nargs="+", default=[1, 3])
    given = options.parse_args()
    print("| edits | median, ms | 95 %, ms | processor: median, ms | 95 %, ms |\n|---|---|---|---|---|")
    for edits in given.edits:
        half, most = 1000 * np.percentile(measure(given.take, given.moves, edits), (50, 95), axis=0)
        print(f"| {edits} | {half[0]:.0f} | {most[0]:.0f} | {half[1]:.0f} | {most[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
