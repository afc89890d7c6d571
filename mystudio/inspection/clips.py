"""Clips and pictures: what the file says, and the faces and cuts that mystudio finds in it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mystudio.inspection.description import Description
from mystudio.types import Progress, silent
from selfscan.errors import NoFaceFound
from selfscan.face import cuts
from selfscan.face.notes import in_words, notes
from selfscan.face.track import track
from selfscan.io import pictures, video
from selfscan.io.facts import ClipFacts, SoundTrack, read_facts
from selfscan.io.opening import VideoInfo
from selfscan.types import Array, FaceTrack

NARROW = 100  # px: a face below it gives soft images
_FAMILIES = {"mov": "mp4 or mov", "matroska": "mkv or webm"}  # containers that one reader reads
SHORT = 10.0  # s: a shorter clip shows too few expressions for a scan


def describe_clip(path: Path, progress: Progress = silent) -> Description:
    """Describe a clip, a picture or a folder of pictures; every frame is read to find faces and cuts.

    Raises: UnreadableVideo, VideoTooLarge.
    """
    info, said = video.probe(path), list[str]()
    facts = read_facts(path)
    said += info.warnings
    try:
        face = track(path, progress, warn=said.append)
        spans = face.cut_spans
    except NoFaceFound:
        face, spans = None, _cuts_without_faces(path)
    said += _turned(face, info) if face is not None else []
    said = list(dict.fromkeys(said))
    spans = () if info.stills else spans
    lines = {
        "what": _what(path, info, facts),
        "picture": _picture(info, facts),
        "sound": _sound(facts),
        "faces": _faces(face),
        "cuts": f"{len(spans)}, at {in_words(spans)} s" if spans else "none",
        "use": " ".join([_use(path, info, face), *said]),
    }
    return Description("clip" if _moves(info) else "picture", lines, _as_values(info, facts, face, spans, said))


def _as_values(info: VideoInfo, facts: ClipFacts, face: FaceTrack | None, spans, said: list[str]) -> dict:
    values = asdict(info) | asdict(facts) | {"warnings": said, "hdr": facts.light in ("PQ", "HLG")}
    values["cuts"] = [list(map(float, span)) for span in spans]
    if face is None:
        return values | {"faces": 0, "frames_with_a_face": 0.0}
    shown = {"face_width": round(_width(face)), "frames": len(face)}
    return values | shown | {"faces": max(1, len(face.crowd)), "frames_with_a_face": float(face.valid.mean())}


def _turned(face: FaceTrack, info: VideoInfo) -> list[str]:
    """Sentences about a face that is not upright; cuts have a line of their own."""
    return notes(replace(face, cuts=face.cuts[:0]), info.stills)


def _moves(info: VideoInfo) -> bool:
    return info.frames_estimate > 1 and not info.stills


def _what(path: Path, info: VideoInfo, facts: ClipFacts) -> str:
    if path.is_dir():
        kind = "photos" if info.stills else f"pictures that are a clip of {info.duration:.2f} s"
        return f"{path.name}: a folder with {info.frames_estimate} {kind}"
    if not _moves(info):
        return f"{path.name}: a picture"
    if facts.container == "picture":
        return f"{path.name}: an animated picture, {info.duration:.2f} s"
    container = _FAMILIES.get(facts.container, facts.container)
    return f"{path.name}: a clip ({container}, {facts.codec}), {info.duration:.2f} s"


def _picture(info: VideoInfo, facts: ClipFacts) -> str:
    parts = [f"{info.width}x{info.height} px"]
    if info.rotation:
        parts.append(f"turned by {info.rotation} degrees")
    if _moves(info):
        rate = "variable, on average " if facts.variable else ""
        parts.append(f"{rate}{info.fps:.4g} frames a second, about {info.frames_estimate} frames")
    if facts.primaries:
        hdr = f"HDR ({facts.light}, {facts.primaries})" if facts.light in ("PQ", "HLG") else ""
        parts.append(hdr or " ".join(filter(None, ("SDR", facts.light, facts.primaries))))
    return ", ".join([*parts, *(["interlaced"] if facts.interlaced else [])])


def _sound(facts: ClipFacts) -> str:
    if not facts.sounds:
        return "none"
    words = [_track(sound) for sound in facts.sounds]
    if len(words) == 1:
        return f"one track: {words[0]}"
    listed = "; ".join(f"{number} {text}" for number, text in enumerate(words, start=1))
    return f"{len(words)} tracks: {listed}; results take track {facts.sound_used}"


def _track(sound: SoundTrack) -> str:
    channels = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
    more = [sound.language] if sound.language else []
    more += ["default"] if sound.default else []
    return ", ".join([sound.codec, channels, f"{sound.rate / 1000:g} kHz", *more])


def _width(face: FaceTrack) -> float:
    """Median width of the followed face, px."""
    x = face.landmarks[face.valid][:, :, 0]
    return float(np.median(x.max(1) - x.min(1))) if len(x) else 0.0


def _faces(face: FaceTrack | None) -> str:
    if face is None:
        return "none found"
    count = max(1, len(face.crowd))
    number = "one face" if count == 1 else f"{count} faces at once, the followed one"
    return f"{number} in {face.valid.mean():.0%} of {len(face)} frames, {_width(face):.0f} px wide"


def _use(place: Path, info: VideoInfo, face: FaceTrack | None) -> str:
    if face is None:
        return "Nothing yet: mystudio needs a face; try a larger, lighter or upright one."
    path = shlex.quote(str(place))
    if info.stills:
        return f"`mystudio scan {path}` makes a scan of the photos."
    if not _moves(info):
        return f"`mystudio reenact AVATAR {path}` gives one pose; a scan needs a clip or a folder of photos."
    if len(face.crowd) > 1:
        return f"`mystudio reenact AVATAR {path}` follows the largest face; a scan must show one person alone."
    small = f" The face is small: {NARROW} px and more are better." if _width(face) < NARROW else ""
    short = f" For a scan it is short: {SHORT:g} s and more are better." if info.duration < SHORT else ""
    return f"`mystudio scan {path}` or `mystudio reenact AVATAR {path}`.{small}{short}"


def _cuts_without_faces(path: Path) -> tuple[tuple[float, float], ...]:
    small, times = list[Array](), list[float]()
    for time, image in video.read(path, warn=video.unwarned):
        small.append(cuts.small(image))
        times.append(time)
    found = cuts.find_cuts(np.stack(small), np.array(times), np.full((len(times), 478, 3), np.nan, np.float32))
    return tuple((times[a], times[min(b, len(times) - 1)]) for a, b in found)


def is_clip_folder(path: Path) -> bool:
    """Whether a folder holds pictures at its top level."""
    return any(p.suffix.lower() in pictures.SUFFIXES for p in path.iterdir() if not p.name.startswith("."))
