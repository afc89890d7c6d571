"""What the page shows of artifacts, read once for each writing of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mystudio.errors import StudioError
from mystudio.storage.artifacts import VALUES, images_left_out_of, load
from mystudio.storage.manifest import Folder, digest_of, open_folder, written
from mystudio.storage.scan_inputs import CLIPS
from mystudio.storage.workspace import DRAFT
from mystudio.types import Edit, Outcome, Take
from selfscan.types import Scan

Facts = TypeVar("Facts")
MOST_KEPT = 500


@dataclass(frozen=True)
class ScanFacts:
    """A scan as the page shows it."""

    numbers: tuple[int, ...]  # of the images, in the scan's order
    recordings: tuple[str, ...]  # what tells each recording, its part and its face from others
    files: tuple[Path, ...]  # the recordings
    shares: tuple[int, ...]  # images of each of them
    options: dict[str, Any]  # which face and part of them, as a job takes it
    size: int  # px
    facing: tuple[int, ...]  # numbers of the images; those that look into the camera with a calm face come first
    rejects: dict[str, int]  # reason -> frames, without those that rejected none
    share: dict[str, float]  # what was seen -> share of the frames
    missing: tuple[str, ...]  # instructions
    warnings: tuple[str, ...]
    person: str
    created: str
    digest: str

    def portrait(self, left_out: Collection[int] = ()) -> str:
        """File of the image that looks into the camera."""
        return image_name(next((number for number in self.facing if number not in left_out), self.facing[0]))


@dataclass(frozen=True)
class AvatarFacts:
    """An avatar as the page shows it."""

    engine: str  # its name
    draft: bool
    likeness: float | None
    own_likeness: float | None
    steps: int | None
    history: tuple[tuple[float, float], ...]  # (step, held-out distance)
    person: str
    fictional: bool
    bytes: int
    created: str
    digest: str
    scan: str  # digest of the scan that it was made from; "" = not known
    left_out: frozenset[int]  # numbers of its images that training did not see
    info: dict[str, Any]


@dataclass(frozen=True)
class TakeFacts:
    """A take as the page shows it."""

    frames: int
    seconds: float
    faults: tuple[tuple[float, float, str], ...]  # start and end as shares of the length, and what happened
    counts: dict[str, int]  # outcome -> frames
    edits: tuple[Edit, ...]
    driver: Path | None  # the driving clip
    span: tuple[float, float | None]  # s of it
    before: Path | None  # take that it was edited from
    avatar: Path
    created: str


class Reader:
    """Reads facts and keeps them until the artifact is written again."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[object, object]] = {}
        self._lock = threading.Lock()

    def scan(self, path: Path) -> ScanFacts | None:
        """Facts of a scan; None if there is none that can be read."""
        return self._read(path, _scan)

    def avatar(self, path: Path) -> AvatarFacts | None:
        """Facts of an avatar, or None."""
        return self._read(path, _avatar)

    def take(self, path: Path) -> TakeFacts | None:
        """Facts of a take, or None."""
        return self._read(path, _take)

    def _read(self, path: Path, make: Callable[[Path], Facts]) -> Facts | None:
        stamp = written(path)
        if stamp is None:
            return None
        with self._lock:
            known = self._kept.get(path)
        if known and known[0] == stamp:
            return known[1]  # type: ignore[return-value]
        try:
            found: Facts | None = make(path)
        except (StudioError, OSError, ValueError, LookupError, TypeError):
            found = None
        with self._lock:
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
            self._kept[path] = stamp, found
        return found


def _scan(path: Path) -> ScanFacts:
    made, manifest = load(path, Scan), open_folder(path, "scan").manifest
    numbers = made.frame_index.tolist()
    videos = [name for name in CLIPS if name in manifest.inputs]
    chosen = {name: manifest.settings[name] for name in ("face", "span") if name in manifest.settings}
    turned = np.zeros(len(numbers))
    for name, weight in (("yaw", 1.0), ("pitch", 1.0), ("mouth_open", 1.5)):
        if (values := made.coverage.measures.get(name)) is not None and len(values) > made.frame_index.max():
            turned += weight * np.abs(np.nan_to_num(values[made.frame_index], nan=1.0))
    return ScanFacts(
        tuple(numbers),
        tuple(digest_of([manifest.inputs[name].digest, chosen]) for name in videos),
        tuple((path.parent / manifest.inputs[name].path).resolve() for name in videos),
        tuple(int((made.clip_index == k).sum()) for k in range(len(videos))),
        _job_options(chosen),
        int(made.images.shape[1]),
        tuple(made.frame_index[(turned - 0.2 * made.quality).argsort(kind="stable")].tolist()),
        {reason: count for reason, count in made.rejects.items() if count},
        made.coverage.share,
        made.coverage.missing,
        made.warnings,
        made.consent.name,
        manifest.created,
        manifest.digest,
    )


def _job_options(chosen: dict[str, Any]) -> dict[str, Any]:
    start, end = chosen.get("span", (0.0, None))
    part = ({"start": start} if start else {}) | ({} if end is None else {"end": end})
    return part | ({"face": chosen["face"]} if "face" in chosen else {})


def image_name(number: int) -> str:
    """File of a scan's image."""
    return f"{number:06d}.png"


def _avatar(path: Path) -> AvatarFacts:
    folder = open_folder(path, "avatar")
    values = json.loads(folder.read(VALUES))
    info, consent = dict(values.get("info", {})), values["consent"]
    source = folder.manifest.inputs.get("scan")
    history = tuple((float(row[0]), float(row[-1])) for row in info.get("history", ()) if len(row) >= 2)
    return AvatarFacts(
        str(values["engine"]),
        bool(folder.manifest.settings.get(DRAFT)),
        info.get("likeness"),
        info.get("own_likeness"),
        info.get("steps"),
        history,
        str(consent["name"]),
        bool(consent.get("fictional")),
        sum(entry.bytes for entry in folder.manifest.files.values()),
        folder.manifest.created,
        folder.manifest.digest,
        source.digest if source else "",
        frozenset(images_left_out_of(folder)),
        info,
    )


def _take(path: Path) -> TakeFacts:
    made, folder = load(path, Take), open_folder(path, "take")
    performance = open_folder(_input(folder, "performance"), "performance")
    start, end = performance.manifest.settings.get("span", (0.0, None))
    driver = _input(performance, "video")
    bad = {Outcome.NO_FACE: "no face was found", Outcome.HELD: "the code was not usable"}
    return TakeFacts(
        len(made),
        float(made.times[-1] - made.times[0]) if len(made) else 0.0,
        tuple(_runs(made.outcome, bad)),
        {outcome.word.replace("_", " "): int((made.outcome == outcome).sum()) for outcome in Outcome},
        made.edits,
        driver if driver.is_file() else None,
        (float(start), None if end is None else float(end)),
        _input(folder, "take") if "take" in folder.manifest.inputs else None,
        _input(folder, "avatar"),
        folder.manifest.created,
    )


def _runs(outcome: np.ndarray[Any, Any], bad: dict[Outcome, str]) -> list[tuple[float, float, str]]:
    """Runs of frames with a fault, as shares of the length."""
    found: list[tuple[float, float, str]] = []
    for kind, words in bad.items():
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (outcome == kind).astype(int), [0]])))
        found += [(a / len(outcome), b / len(outcome), words) for a, b in edges.reshape(-1, 2)]
    return sorted(found)


def _input(folder: Folder, role: str) -> Path:
    """Place of an input, without reading all of it as ``Folder.source`` does."""
    return Path((folder.path.parent / folder.manifest.inputs[role].path).resolve())
