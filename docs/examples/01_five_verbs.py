"""The five verbs, from a clip of a person to a finished video, and a report.

    python docs/examples/01_five_verbs.py

This runs on the demo clips that come with mystudio, which show people who do not exist, and takes about six minutes on
two cores. For yourself, give a recording of you, a driving clip, a folder and a recipe:

    python docs/examples/01_five_verbs.py me.mp4 driver.mp4 my-studio default

Run it again: what is up to date is not computed a second time.
"""

import json
import sys
from pathlib import Path

import mystudio
from mystudio.demo import FOLDER as DEMO


def show(stage: str, done: int, total: int) -> None:
    """Print progress on one line; every long stage calls this."""
    print(f"\r{stage} {done}/{total}    ", end="", flush=True)


def main(video=DEMO / "scan.mp4", driver=DEMO / "driver.mp4", out="five-verbs", recipe="quick") -> Path:
    out = Path(out)
    fictional = Path(video).parent == DEMO  # the demo's person does not exist; you do

    # Scan: sharp, diverse, aligned images of one person. The name says who is shown and has agreed.
    scan = mystudio.scan(video, out / "me.scan", "Ada Example", fictional=fictional, recipe=recipe, progress=show)
    print(f"\n{len(mystudio.load(scan, mystudio.Scan))} images were chosen")

    # Personalize: the avatar is a generator tuned until it draws this person. This is the long stage.
    avatar = mystudio.personalize(scan, out / "me.avatar", recipe=recipe, progress=show)

    # Reenact: the take holds what the avatar does, as codes over time.
    take = mystudio.reenact(avatar, driver, out / "hello.take", recipe=recipe, progress=show)

    # Edit: a smile that grows over the first second, given as (seconds, strength), and a gaze to the side.
    edits = {"smile": [(0.0, 0.0), (1.0, 1.5)], "gaze_x": 0.5}
    smiling = mystudio.edit(take, out / "smiling.take", edits)

    # Render: only now are pictures drawn.
    clip = mystudio.render(smiling, out / "hello.mp4", view="side-by-side", recipe=recipe, progress=show)

    # How good is it? The report is a page to look at, metrics.json has the numbers.
    report = mystudio.evaluate(take, out / "report", progress=show)
    rows = json.loads((report / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    print("\n" + "\n".join(f"{row['title']}: {row['value']:.3g}" for row in rows if row["headline"] and row["value"]))
    print(f"the clip: {clip}, the report: {report / 'report.html'}")
    return clip


if __name__ == "__main__":
    main(*sys.argv[1:])
