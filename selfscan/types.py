"""selfscan's results: frozen dataclasses that check their shapes when they are made.

Conventions: first axis T (frames) or N (chosen images); pixels x right, y down; seconds; radians;
transforms are named ``b_from_a``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from selfscan.span import WHOLE as WHOLE
from selfscan.span import Span as Span

NUM_LANDMARKS = 478
Array = np.ndarray[Any, np.dtype[Any]]  # the comment at each use gives shape, dtype and unit
Progress = Callable[[str, int, int], None]  # (stage, done, total)


def silent(stage: str, done: int, total: int) -> None:
    """The default progress callback; it does nothing."""


class Shaped(Protocol):
    """An array or a tensor: anything with a shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_shape(name: str, array: Shaped, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless ``array`` has ``shape`` (None matches any length)."""
    got = tuple(array.shape)
    if len(got) != len(shape) or any(s is not None and s != g for s, g in zip(shape, got)):
        raise ValueError(f"{name}: expected shape {shape}, got {got}")


@dataclass(frozen=True)
class FaceTrack:
    """One face followed through a clip."""

    landmarks: Array  # [T, 478, 3] float32 px of the source frame (z in the scale of x); gaps are filled
    pose: Array  # [T, 4, 4] float32 frame_from_head: a similarity (rotation x scale, translation px)
    score: Array  # [T] float32 face confidence in 0..1 (0 where nothing was found)
    valid: Array  # [T] bool: True = measured in this frame; False = interpolated from neighbours
    times: Array  # [T] float64 s, the source's own time stamps
    frame_size: tuple[int, int]  # (width, height) px after rotation
    second_face: Array  # [T] bool: another face of at least half this one's width was visible
    #: [C, 2] of each cut: the first frame of the new shot, and the first one without the old shot (a cross-fade's end)
    cuts: Array = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    #: [K, 5] of the frame with most faces, from left to right: frame, left, top, right, bottom px; K = 0: one face
    crowd: Array = field(default_factory=lambda: np.zeros((0, 5)))

    def __post_init__(self):
        t = len(self.landmarks)
        check_shape("cuts", self.cuts, (None, 2))
        check_shape("crowd", self.crowd, (None, 5))
        check_shape("landmarks", self.landmarks, (t, NUM_LANDMARKS, 3))
        check_shape("pose", self.pose, (t, 4, 4))
        for name in ("score", "valid", "times", "second_face"):
            check_shape(name, getattr(self, name), (t,))

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def shots(self) -> tuple[slice, ...]:
        """The frames between two cuts, in order. Nothing may be smoothed or interpolated from one shot to the next."""
        return shots_of(self.cuts, len(self))

    @property
    def cut_spans(self) -> tuple[tuple[float, float], ...]:
        """Start and end of each cut, s; both are equal unless it is a cross-fade."""
        last = len(self) - 1
        return tuple((float(self.times[a]), float(self.times[min(b, last)])) for a, b in self.cuts)


def shots_of(cuts: Array, count: int) -> tuple[slice, ...]:
    """Shots of a clip of ``count`` frames with these cuts [C, 2]; a cross-fade is parted in its middle."""
    starts = [0, *sorted({int(first + last) // 2 for first, last in cuts} - {0, count}), count]
    return tuple(slice(a, b) for a, b in zip(starts, starts[1:]))


@dataclass(frozen=True)
class Alignment:
    """FFHQ-style square crop of every frame, smoothed over time."""

    crop_from_frame: Array  # [T, 2, 3] float64 px to px, a similarity
    size: int  # px, side of the crop

    def __post_init__(self):
        check_shape("crop_from_frame", self.crop_from_frame, (None, 2, 3))


@dataclass(frozen=True)
class Observation:
    """A measured clip: the face's track, its aligned crop, and the landmarks *measured in the crop*.

    The same network measures real crops and generated images in the same fixed region. A comparison of the two is
    therefore free of the network's bias.
    """

    track: FaceTrack
    alignment: Alignment
    landmarks: Array  # [T, 478, 3] float32, in crops (0..1 spans the crop; z in the scale of x)
    presence: Array  # [T] float32 the landmark network's face probability in the crop, 0..1
    video: str  # path of the clip
    video_sha256: str
    warnings: tuple[str, ...] = ()  # sentences on what was found or changed: colours, fields, sizes, rate, cuts, turns
    span: Span = WHOLE  # the part of the clip that was measured; times count from its start

    def __post_init__(self):
        t = len(self.track)
        check_shape("landmarks", self.landmarks, (t, NUM_LANDMARKS, 3))
        check_shape("presence", self.presence, (t,))
        check_shape("crop_from_frame", self.alignment.crop_from_frame, (t, 2, 3))

    def __len__(self) -> int:
        return len(self.track)


@dataclass(frozen=True)
class Said:
    """A prompt that was shown to the person, to read aloud or to hold up."""

    text: str
    start: float  # s of the recording
    end: float  # s
    mouth: float | None = None  # range of the mouth's opening meanwhile, in eye distances; None: no face was found


@dataclass(frozen=True)
class CodeWords:
    """Random words shown during a recording: evidence for a human listener; no speech recognition is run."""

    said: tuple[Said, ...]
    recorded: str  # ISO 8601, UTC: when the recording ended
    video_sha256: str  # of the recording


@dataclass(frozen=True)
class ConsentClip:
    """A separate clip in which the person states their consent."""

    video_sha256: str
    likeness: float  # of its face to the scan's face: see selfscan.scan.identity
    threshold: float  # a lower likeness is rejected
    words: CodeWords | None = None


@dataclass(frozen=True)
class ConsentRecording:
    """A further clip to which a statement of consent applies."""

    video_sha256: str
    words: CodeWords | None = None  # shown while it was recorded


@dataclass(frozen=True)
class Consent:
    """The person's consent: who, the statement, when, and for which clips."""

    name: str
    statement: str
    when: str  # ISO 8601, UTC
    video_sha256: str
    fictional: bool = False  # True: the person does not exist
    words: CodeWords | None = None  # shown while the clip was recorded
    clip: ConsentClip | None = None
    others: tuple[ConsentRecording, ...] = ()  # further clips of the scan

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each clip to which it applies."""
        return self.video_sha256, *(other.video_sha256 for other in self.others)


@dataclass(frozen=True)
class Coverage:
    """Which poses, expressions and gazes a clip contains."""

    measures: dict[str, Array]  # name -> [T] (yaw, pitch, roll rad; mouth, eyes, brows, gaze_x, gaze_y ratios)
    share: dict[str, float]  # name of a bin ("yaw left", "mouth open", ...) -> share of the valid frames
    missing: tuple[str, ...] = ()  # instructions for a new recording, such as "turn further left"


@dataclass(frozen=True)
class IdentityCheck:
    """Whether a clip shows one person: see ``selfscan.scan.identity``."""

    seconds: float  # s of the clip that could be compared
    lowest: float | None  # lowest likeness of any part of 1.5 s to the rest; None: nothing could be compared
    threshold: float  # a lower likeness is rejected


@dataclass(frozen=True)
class ScanClip:
    """One of the clips of a scan; their frames and times count one after the other."""

    name: str  # of its file
    video_sha256: str
    first: int  # number of its first frame in ``Scan.frame_index``
    frames: int  # how many it has
    start: float  # s, time of its first frame in ``Scan.held_out`` and ``Scan.cuts``
    begins: float | None = None  # s, time of its first frame in its file; None: an older version


@dataclass(frozen=True)
class Scan:
    """The chosen, aligned images of one person."""

    images: Array  # [N, H, W, 3] uint8 RGB
    landmarks: Array  # [N, 478, 3] float32, in crops (0..1 spans the crop)
    frame_index: Array  # [N] int64 frame index in the clip, or in all clips one after the other; also the image's id
    quality: Array  # [N] float32 0..1
    rejects: dict[str, int]  # reason -> number of frames
    coverage: Coverage
    consent: Consent
    perceptual: str  # name of the metric that chose the frames
    held_out: Array = field(default_factory=lambda: np.zeros((0, 2)))  # [M, 2] s: start and end of the spans held out
    identity: IdentityCheck | None = None  # None: made by a version without this check
    warnings: tuple[str, ...] = ()  # sentences on what reading the clip changed, see ``Observation``
    cuts: tuple[tuple[float, float], ...] = ()  # s, start and end of each cut of the clip; single photos have none
    #: [N, 4, 2] the frame's corners in each crop (0..1 spans the crop), in order around it; empty: an older version
    frame_corners: Array = field(default_factory=lambda: np.zeros((0, 4, 2)))
    #: [M, 478, 3] as ``landmarks``, of usable frames from the whole clip, for the neutral face; empty: an older version
    clip_landmarks: Array = field(default_factory=lambda: np.zeros((0, NUM_LANDMARKS, 3), np.float32))
    clips: tuple[ScanClip, ...] = ()  # empty: one clip, scanned by an older version

    def __post_init__(self):
        n = len(self.images)
        check_shape("frame_corners", self.frame_corners, (n if len(self.frame_corners) else 0, 4, 2))
        check_shape("images", self.images, (n, None, None, 3))
        check_shape("landmarks", self.landmarks, (n, NUM_LANDMARKS, 3))
        check_shape("clip_landmarks", self.clip_landmarks, (None, NUM_LANDMARKS, 3))
        check_shape("frame_index", self.frame_index, (n,))
        check_shape("quality", self.quality, (n,))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def clip_index(self) -> Array:
        """[N] which of ``clips`` each image comes from."""
        firsts = [clip.first for clip in self.clips] or [0]
        return np.searchsorted(firsts, self.frame_index, side="right") - 1
