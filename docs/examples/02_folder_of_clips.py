"""Drive one avatar with every clip of a folder; a clip without a face does not stop the others.

    python docs/examples/02_folder_of_clips.py me.avatar clips results

The folder ``results`` gets a video and a take for each clip, and ``overview.csv`` with one row a clip. Stop it at any
time: the same command continues, because a take or video that is up to date is not computed again. A clip's
measurements are stored beside its take and are used again by the next avatar.
"""

import csv
import sys
from pathlib import Path

import mystudio
from mystudio import Outcome, StudioError, Take
from selfscan import SelfscanError


def main(avatar, clips, out, recipe="default") -> Path:
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip in sorted(Path(clips).glob("*.mp4")):
        try:
            take = mystudio.reenact(avatar, clip, out / f"{clip.stem}.take", recipe=recipe)
            mystudio.render(take, out / f"{clip.stem}.mp4", recipe=recipe)
        except (SelfscanError, StudioError) as error:  # each message says what was expected, what came and what to do
            rows.append({"clip": clip.name, "frames": 0, "without face": 0, "problem": str(error)})
            continue
        outcome = mystudio.load(take, Take).outcome  # [T], one number a frame
        missing = int((outcome == Outcome.NO_FACE).sum())
        rows.append({"clip": clip.name, "frames": len(outcome), "without face": missing, "problem": ""})

    overview = out / "overview.csv"
    with overview.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["clip", "frames", "without face", "problem"])
        table.writeheader()
        table.writerows(rows)
    print(overview.read_text(encoding="utf-8"))
    return overview


if __name__ == "__main__":
    main(*sys.argv[1:])
