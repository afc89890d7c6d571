"""Train and evaluate a base: actors, portraits, encoder, contact sheet, figures. Each call resumes the last one.

    mystudio actors import-basis ICT_FACEKIT
    python recipes/make_base.py OUT --faces FACES --minutes 9

FACES is a folder of aligned portraits whose licences permit training. Without --minutes it runs until all is done.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from mystudio.actors.factors import N_LOOK, N_MOTION

PARTS_MB = 15  # largest file of a checkpoint, MiB


def main() -> None:
    """Do the remaining steps until the time limit is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=0.0, help="time limit of this call; 0 = until all is done")
    parser.add_argument("--samples", type=int, default=1000, help="number of generated images to evaluate")
    parser.add_argument("--option", action="append", default=[], help="TABLE.KEY=VALUE, a setting of both trainings")
    given = parser.parse_args()
    out, ends = given.out, time.monotonic() + 60 * given.minutes if given.minutes else None
    out.mkdir(parents=True, exist_ok=True)
    actors, base, encoder = (out / f"{name}.safetensors" for name in ("actors", "base", "base.encoder"))
    options = [word for option in given.option for word in ("--option", option)]
    portraits = ["--data", given.faces, "--weight", 2, "--data", "actors", "--weight", 1]
    for run, recipe, data, start, made in (
        ("actors.run", "base-actors", ["--data", "actors"], [], actors),
        ("faces.run", "base-faces", portraits, ["--from", actors], base),
    ):
        if not made.exists():
            left = ["--minutes", minutes_left(ends)] if ends else []
            told = mystudio(
                "base",
                "train",
                "-o",
                out / run,
                "--recipe",
                recipe,
                *options,
                *data,
                *start,
                *left,
                "--max-part-mb",
                PARTS_MB,
            )
            if not told["done"]:
                return print(f"{out / run}: not done yet; run the same command to resume")
            mystudio("base", "export", out / run, "-o", made)
    if not encoder.exists():
        minutes_left(ends)
        mystudio("base", "train-encoder", base, "--look-factors", N_LOOK, "--motion-factors", N_MOTION)
    mystudio("base", "sheet", base, "-o", out / "sheet.png")
    mystudio(
        "base",
        "evaluate",
        base,
        "-o",
        out / "figures",
        "--samples",
        given.samples,
        "--data",
        "actors",
        "--data",
        given.faces,
    )


def minutes_left(ends: float | None) -> float:
    """Minutes until the time limit; exits if it is reached."""
    left = (ends - time.monotonic()) / 60 if ends else 0.0
    if ends and left < 0.2:
        print("time limit reached; run the same command to resume")
        raise SystemExit(0)
    return round(left, 2)


def mystudio(*words) -> dict:
    """Run a mystudio command and return its --json output; exits if it fails."""
    print("mystudio", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "mystudio.cli", *map(str, words), "--json"], stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


if __name__ == "__main__":
    main()
