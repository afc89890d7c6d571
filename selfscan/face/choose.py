"""Choose one face of a clip: in every shot the most prominent one, or the one that the user asks for."""

from __future__ import annotations

import numpy as np

from selfscan.errors import NoFaceFound
from selfscan.face.follow import FOLLOW_SHARE, Sighting, centre_of, face_width, prominence
from selfscan.face.landmarks import MESH
from selfscan.types import Array

LARGEST, LEFT, RIGHT = "largest", "left", "right"  # beside them a number: counted from the left, from 1
SECOND_SHARE = 0.5  # of the followed face's width; another face at least this wide is a second face
MIN_FRAMES = 3  # frames; a shorter track is neither a face of its own nor joined to the chosen face
INSET_OFF = 0.5  # of the way from the frame's middle to its corner
BESIDE = 0.75  # widths of the chosen face: a track that starts farther from it is another face

Face = dict[int, Sighting]  # frame -> sighting


def check_wanted(wanted: str) -> str:
    """Check which face is wanted: ``largest``, ``left``, ``right`` or a number from 1. Raises ValueError."""
    if wanted not in (LARGEST, LEFT, RIGHT) and not (wanted.isdecimal() and int(wanted) > 0):
        raise ValueError(f"face: expected largest, left, right or a number from 1, got {wanted!r}")
    return wanted


def choose(faces: list[Face], size: tuple[int, int], shots: tuple[slice, ...], wanted: str = LARGEST) -> Face:
    """The sightings of the wanted face in all shots.

    Args:
        faces: tracks of the whole clip; the sightings of one track may lie in several shots.
        size: (width, height) px of the frames.
        wanted: see ``check_wanted``. A number counts from the left among the faces of ``crowd``, and in shots with as
            many faces. In other shots the most prominent face counts.
    Raises:
        NoFaceFound: a number is higher than the number of faces that are visible together.
    """
    at = crowd(faces)
    if wanted.isdecimal() and int(wanted) > max(len(at), 1):
        raise NoFaceFound(
            f"expected a face number {wanted}, but at most {max(len(at), 1)} faces are visible together; "
            "choose a smaller number"
        )
    chosen: Face = {}
    widest = _width(max(faces, key=lambda face: _weight(face, size)))
    for shot in shots:
        inside = [{k: s for k, s in face.items() if shot.start <= k < shot.stop} for face in faces]
        pieces = [piece for piece in inside if piece and not _is_inset(piece, widest, size)]
        pieces.sort(key=lambda piece: -_weight(piece, size))
        if pieces:
            first = _wanted(pieces, wanted)
            chosen |= _joined(first, [piece for piece in pieces if piece is not first], wanted)
    return chosen


def crowd(faces: list[Face]) -> Array:
    """The boxes [K, 5] of the frame that shows most faces, from left to right: frame, left, top, right, bottom px.

    Empty where no frame shows two faces of similar size.
    """
    large = [face for face in faces if len(face) >= MIN_FRAMES]
    counts: dict[int, int] = {}
    for face in large:
        for frame in face:
            counts[frame] = counts.get(frame, 0) + 1
    best = [frame for frame, count in counts.items() if count == max(counts.values())] if counts else []
    frame = sorted(best)[len(best) // 2] if best else 0
    return boxes([face[frame][0] for face in large if frame in face], frame)


def boxes(shown: list[Array], frame: int = 0) -> Array:
    """The same for the faces [478, 3] px of one frame."""
    widest = max(map(face_width, shown), default=0.0)
    shown = [points for points in shown if face_width(points) >= SECOND_SHARE * widest]
    if len(shown) < 2:
        return np.zeros((0, 5))
    found = [(frame, *points[MESH, :2].min(0), *points[MESH, :2].max(0)) for points in shown]
    return np.array(sorted(found, key=lambda box: box[1] + box[3]), np.float64)


def wanted_number(faces: dict[int, Sighting], size: tuple[int, int], wanted: str = LARGEST) -> int | None:
    """Number of the wanted one of the faces of a single frame; None without faces. See ``choose``."""
    if not faces:
        return None
    widest = max(face_width(points) for points, _ in faces.values())
    large = [number for number, (points, _) in faces.items() if face_width(points) >= SECOND_SHARE * widest]
    across = sorted(large, key=lambda number: centre_of(faces[number][0])[0])
    if wanted in (LEFT, RIGHT):
        return across[0 if wanted == LEFT else -1]
    if wanted.isdecimal() and 1 < len(across) >= int(wanted):
        return across[int(wanted) - 1]
    return max(faces, key=lambda number: prominence(faces[number], size))


def _wanted(pieces: list[Face], wanted: str) -> Face:
    """The wanted one of a shot's tracks, which are sorted by prominence."""
    if wanted == LARGEST:
        return pieces[0]
    width = _width(pieces[0])
    large = [piece for piece in pieces if len(piece) >= MIN_FRAMES and _width(piece) >= SECOND_SHARE * width]
    across = sorted(
        large or pieces[:1], key=lambda piece: float(np.median([centre_of(p)[0] for p, _ in piece.values()]))
    )
    if wanted in (LEFT, RIGHT):
        return across[0 if wanted == LEFT else -1]
    together = [piece for piece in across if any(piece.keys() & other.keys() for other in across if other is not piece)]
    return together[int(wanted) - 1] if int(wanted) <= len(together) else pieces[0]


def _joined(first: Face, others: list[Face], wanted: str) -> Face:
    """The track with those that continue it before and after gaps."""
    chosen, width = dict(first), _width(first)
    middle = _middle(first)
    for face in others:
        ratio = _width(face) / width
        away = np.linalg.norm(_middle(face) - middle)
        same = wanted == LARGEST or away < BESIDE * width
        if len(face) >= MIN_FRAMES and 0.5 < ratio < 2 and same and not chosen.keys() & face.keys():
            chosen |= face
    return chosen


def _is_inset(face: Face, widest: float, size: tuple[int, int]) -> bool:
    """Whether a face is an inset or a poster: small beside the main one, and far from the middle."""
    middle = np.array(size) / 2
    off = float(np.linalg.norm(_middle(face) - middle) / np.linalg.norm(middle))
    return _width(face) < FOLLOW_SHARE * widest and off > INSET_OFF


def _width(face: Face) -> float:
    return float(np.median([face_width(points) for points, _ in face.values()]))


def _middle(face: Face) -> Array:
    return np.median([centre_of(points) for points, _ in face.values()], 0)


def _weight(face: Face, size: tuple[int, int]) -> float:
    return sum(prominence(sighting, size) for sighting in face.values())
