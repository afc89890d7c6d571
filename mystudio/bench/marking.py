"""Robustness and cost of the watermark: bit errors by channel, quality, flicker, false positives.

python -m mystudio.bench.marking CLIP ... [--clean FOLDER] [--frames 48]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mystudio.bench.tables import cell
from mystudio.provenance import watermark
from mystudio.provenance.watermark import Detection, WatermarkSettings
from mystudio.provenance.watermark.payload import BITS, encode
from selfscan.io import video

Frames = list[np.ndarray]  # each [H, W, 3] uint8 RGB
Channel = Callable[[Frames], Frames]
PAYLOAD = 0x5EED_C0DE_D00D


@dataclass(frozen=True)
class MarkingCase:
    """What is measured."""

    clips: tuple[Path, ...]
    frames: int = 48  # frames from the beginning of each clip
    looked_at: int = 3  # evenly spread single frames of each clip that are also decoded alone
    settings: WatermarkSettings = WatermarkSettings()


def compressed(crf: float) -> Channel:
    """Encode with H.264 as ``render`` does, and decode."""

    def channel(frames: Frames) -> Frames:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            video.write(path, frames, np.arange(len(frames)) / 25, crf=crf)
            return [frame for _, frame in video.read(path)]

    return channel


def scaled(factor: float) -> Channel:
    """Resize by a factor, rounded to even numbers of pixels."""

    def channel(frames: Frames) -> Frames:
        size = [2 * round(side * factor / 2) for side in frames[0].shape[1::-1]]
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return [cv2.resize(frame, size, interpolation=how) for frame in frames]

    return channel


def cropped(share: float) -> Channel:
    """Crop a share of the height and of the width, one third of it at the top and at the left."""

    def channel(frames: Frames) -> Frames:
        height, width = frames[0].shape[:2]
        top, left = round(height * share / 3), round(width * share / 3)
        bottom, right = top + round(height * (1 - share)), left + round(width * (1 - share))
        return [frame[top:bottom, left:right] for frame in frames]

    return channel


def toned(gain: float = 1.0, offset: float = 0.0, gamma: float = 1.0) -> Channel:
    """Change contrast (about middle grey), brightness (``offset``, in grey levels) and gamma."""
    levels = (np.arange(256) / 255) ** gamma * 255
    table = np.clip(np.rint((levels - 128) * gain + 128 + offset), 0, 255).astype(np.uint8)
    return lambda frames: [cv2.LUT(frame, table) for frame in frames]


def jpeg(quality: int) -> Channel:
    """Every frame as a JPEG."""

    def through_file(frame: np.ndarray) -> np.ndarray:
        data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])

    return lambda frames: [through_file(frame) for frame in frames]


def turned(degrees: float) -> Channel:
    """Rotated about the middle."""

    def channel(frames: Frames) -> Frames:
        height, width = frames[0].shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        return [cv2.warpAffine(f, matrix, (width, height), borderMode=cv2.BORDER_REFLECT) for f in frames]

    return channel


def stretched(share: float) -> Channel:
    """Stretch the width by a share; the height is unchanged."""

    def channel(frames: Frames) -> Frames:
        height, width = frames[0].shape[:2]
        return [
            cv2.resize(f, (2 * round(width * (1 + share) / 2), height), interpolation=cv2.INTER_CUBIC) for f in frames
        ]

    return channel


def blurred(sigma: float) -> Channel:
    """Gaussian blur, px."""
    return lambda frames: [cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]


def mirrored(frames: Frames) -> Frames:
    """Left and right exchanged."""
    return [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]


CHANNELS: dict[str, tuple[Channel, ...]] = {
    "nothing": (),
    "H.264, CRF 23": (compressed(23),),
    "H.264, CRF 28": (compressed(28),),
    "H.264, CRF 33": (compressed(33),),
    "H.264 twice, CRF 23 and 28": (compressed(23), compressed(28)),
    "JPEG, quality 50": (jpeg(50),),
    "scaled to 50 %": (scaled(0.5),),
    "scaled to 50 % and back": (scaled(0.5), scaled(2.0)),
    "scaled to 150 %": (scaled(1.5),),
    "cropped by 10 %": (cropped(0.1),),
    "cropped by 40 %": (cropped(0.4),),
    "brightness +40": (toned(offset=40),),
    "contrast x 0.6": (toned(gain=0.6),),
    "contrast x 1.4": (toned(gain=1.4),),
    "gamma 0.6": (toned(gamma=0.6),),
    "gamma 1.6": (toned(gamma=1.6),),
    "mirrored": (mirrored,),
    "cropped by 10 %, 50 %, CRF 23": (cropped(0.1), scaled(0.5), compressed(23)),
    "cropped by 10 %, gamma 1.3, CRF 28": (cropped(0.1), toned(gamma=1.3), compressed(28)),
    "CRF 23, cropped by 10 %, 75 %, brightness +20, CRF 28":
        (compressed(23), cropped(0.1), scaled(0.75), toned(offset=20), compressed(28)),
    "H.264, CRF 38": (compressed(38),),
    "blurred by 4 px": (blurred(4),),
    "scaled to 25 %": (scaled(0.25),),
    "cropped by 60 %": (cropped(0.6),),
    "stretched by 1 %": (stretched(0.01),),
    "stretched by 4 %": (stretched(0.04),),
    "turned by 0.5°": (turned(0.5),),
    "turned by 2°": (turned(2.0),),
}  # fmt: skip


def through(frames: Frames, channels: Sequence[Channel]) -> Frames:
    """Apply the channels to the frames, one after the other."""
    for channel in channels:
        frames = channel(frames)
    return frames


def bit_errors(found: Detection, payload: int = PAYLOAD) -> float:
    """Return the share of wrong bits among the 192 code bits before correction; one half if no mark was found."""
    return 0.5 if found.soft is None else float(np.mean((found.soft > 0) != (encode(payload) > 0)))


def robustness(case: MarkingCase, channels: Mapping[str, Sequence[Channel]] = CHANNELS) -> list[dict]:
    """Measure every channel on every clip.

    Args:
        case: clips and settings.
        channels: name -> changes applied to the marked frames, in order.
    Returns: rows with clip, channel, and for single frames and the whole clip: read (share with the right payload),
        wrong (share with a wrong payload), errors (share of code bits), known (recognised when expected).
    """
    rows = []
    for path in case.clips:
        frames = first_frames(path, case.frames)
        marked = [watermark.embed(frame, PAYLOAD, case.settings) for frame in frames]
        for name, steps in channels.items():
            got = through(marked, steps)
            chosen = [got[i] for i in np.linspace(0, len(got) - 1, case.looked_at).round().astype(int)]
            single = [watermark.detect(frame, case.settings) for frame in chosen]
            whole = watermark.detect(got, case.settings)
            known = whole.payload == PAYLOAD or watermark.detect(got, case.settings, [PAYLOAD]).payload == PAYLOAD
            rows.append(
                {
                    "clip": path.stem,
                    "channel": name,
                    "frame": _summary(single),
                    "whole": _summary([whole]),
                    "known": float(known),
                }
            )
    return rows


def _summary(found: Sequence[Detection]) -> dict[str, float]:
    return {
        "read": float(np.mean([one.payload == PAYLOAD for one in found])),
        "wrong": float(np.mean([one.payload not in (None, PAYLOAD) for one in found])),
        "errors": float(np.mean([bit_errors(one) for one in found])),
    }


def quality(path: Path, frames: int = 48, settings: WatermarkSettings | None = None) -> dict[str, float]:
    """Measure the cost of marking a clip: PSNR, flicker and time.

    Returns: psnr and lowest (dB, mean and worst frame), flicker (grey levels, rms of the mark's change from frame to
        frame), motion (the same for the unmarked clip), fps (frames embedded per second).
    """
    clean = first_frames(path, frames)
    watermark.embed(clean[0], PAYLOAD, settings)  # generates the pattern, which is done once for each size
    start = time.perf_counter()
    marked = [watermark.embed(frame, PAYLOAD, settings) for frame in clean]
    seconds = time.perf_counter() - start
    change = [b.astype(np.int16) - a for a, b in zip(clean, marked)]
    each = [10 * np.log10(255**2 / np.mean(np.square(one, dtype=np.float64))) for one in change]
    flicker, motion = (
        _rms(b.astype(np.int16) - a for a, b in itertools.pairwise(series))
        for series in (change, [frame.astype(np.int16) for frame in clean])
    )
    return {
        "psnr": float(np.mean(each)),
        "lowest": float(np.min(each)),
        "flicker": flicker,
        "motion": motion,
        "fps": len(clean) / seconds,
    }


def _rms(differences: Iterable[np.ndarray]) -> float:
    squares = [np.mean(np.square(one, dtype=np.float64)) for one in differences]
    return float(np.sqrt(np.mean(squares))) if squares else 0.0


def false_positives(images: Iterable[np.ndarray], settings: WatermarkSettings | None = None) -> dict[str, float]:
    """Measure false positives: look for marks in unmarked images.

    Args:
        images: clean images [H, W, 3] uint8 RGB, each examined alone.
        settings: key and limit.
    Returns: count, found, highest (score), least (smallest bound of the probability), below (share of bounds under
        0.01, which the theory predicts to be at most 0.01).
    """
    found = [watermark.detect(image, settings) for image in images]
    chances = np.array([one.false_positive for one in found])
    return {
        "count": len(found),
        "found": sum(one.marked for one in found),
        "highest": max(o.score for o in found),
        "least": float(chances.min()),
        "below": float(np.mean(chances < 0.01)),
    }


def first_frames(path: Path, count: int) -> Frames:
    """The beginning of a clip."""
    return [frame for _, frame in itertools.islice(video.read(path), count)]


def markdown(rows: Sequence[Mapping]) -> str:
    """Return the table of ``robustness`` as markdown, averaged over the clips."""
    lines = [
        "| channel | bit errors, frame % | frames read % | bit errors, clip % | clips read | clips known |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["channel"] for row in rows):
        same = [row for row in rows if row["channel"] == name]
        mean = {
            (part, key): 100 * float(np.mean([row[part][key] for row in same]))
            for part in ("frame", "whole")
            for key in ("errors", "read")
        }
        cells = [
            cell(mean["frame", "errors"], 1),
            cell(mean["frame", "read"], 0),
            cell(mean["whole", "errors"], 1),
            f"{sum(row['whole']['read'] for row in same):.0f} of {len(same)}",
            f"{sum(row['known'] for row in same):.0f} of {len(same)}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    wrong = sum(row[part]["wrong"] for row in rows for part in ("frame", "whole"))
    return "\n".join([*lines, "", f"Wrong payloads of {BITS} bits reported: {wrong:.0f}."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--clean", type=Path, help="folder of unmarked images: false positives")
    parser.add_argument("--most", type=int, default=1000, help="clean images")
    parser.add_argument("--frames", type=int, default=48, help="of each clip's beginning")
    given = parser.parse_args(arguments)
    for path in given.clips:
        print(path.stem, {name: round(value, 2) for name, value in quality(path, given.frames).items()}, flush=True)
    print(markdown(robustness(MarkingCase(tuple(given.clips), given.frames))), flush=True)
    if given.clean:
        paths = sorted(given.clean.iterdir())[: given.most]
        print(false_positives(cv2.imread(str(path))[..., ::-1] for path in paths if path.suffix in (".jpg", ".png")))


if __name__ == "__main__":
    main()
