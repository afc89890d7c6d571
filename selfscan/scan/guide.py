"""Guidance while a self-scan is recorded: instructions, faults of the picture, and words to say.

The words are chosen at random at the start and shown one after the other. Their times are stored with the digest of
the recording. They are evidence for a human viewer; no speech or writing is recognised.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, timezone

import numpy as np

from selfscan.errors import ConsentMissing
from selfscan.face.align import crop
from selfscan.face.facemesh import load_facemesh
from selfscan.face.locate import Locator
from selfscan.face.measures import measures
from selfscan.face.observe import measure
from selfscan.io.text import decoded
from selfscan.scan.coverage import BINS, NEEDED, missing, shares
from selfscan.scan.quality import BLURRED, BRIGHT, BURNT, DARK, FACE, SIZE, detail_of, skin_colours
from selfscan.types import Array, CodeWords, Said

#: short words that sound different, mostly of two syllables; three take a few seconds to say
WORDS = (
    "amber", "anchor", "apple", "arrow", "badger", "basket", "beacon", "button", "candle", "canyon", "carrot", "castle",
    "cedar", "copper", "cotton", "desert", "dolphin", "donkey", "falcon", "feather", "garden", "garlic", "ginger",
    "hammer", "harbour", "island", "jacket", "jungle", "kettle", "ladder", "lemon", "lizard", "magnet", "marble",
    "meadow", "mirror", "monkey", "needle", "number", "olive", "orange", "paper", "pepper", "pillow", "planet",
    "pocket", "rabbit", "ribbon", "river", "rocket", "saddle", "salmon", "silver", "spider", "summer", "thunder",
    "tiger", "timber", "tunnel", "velvet", "violet", "window", "winter", "yellow",
)  # fmt: skip
AGREE = "I agree to my avatar"
FIRST_SECONDS, ITEM_SECONDS, RANDOM = 2.0, 2.5, 3  # s before the first item, s of each item, number of random words
RATE = 8.0  # frames measured a second; leaves processor time for encoding
LEAST_SECONDS = 20.0  # s, minimum length of a recording, even if nothing is missing
NEAR = 256  # px, minimum side of the aligned crop in the frame: the size of a scan's images
AT_ONCE = 2  # instructions shown at once
MOVED = 0.05  # eye distances: minimum change of the mouth's opening during speech
MAX_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to show to the person in front of the camera."""

    time: float  # s
    say: str  # the item to say or hold up now; "" = none
    wrong: tuple[str, ...]  # faults of the picture
    todo: tuple[str, ...]  # instructions for the first missing poses and expressions
    enough: bool  # True = nothing is missing


class Guide:
    """Measures a recording in progress and gives advice.

    Args:
        items: texts to say or hold up, in order; see ``code_words``.
        seconds: expected length of the recording.
        reduced: px of the recording for one px of the frames that are measured.
        seen: ``seen`` of a guide whose recording is continued.
    """

    def __init__(self, items: Sequence[str], seconds: float, reduced: float = 1.0, seen: Iterable[Array] = ()):
        self.items, self._seconds, self._reduced = tuple(items), seconds, reduced
        self._mesh = load_facemesh()
        self._locate = Locator(SIZE, 0.0, self._mesh)
        self.seen: list[Array] = list(seen)  # measures of each good frame, in the order of ``measures``
        self.parts = dict.fromkeys(BINS, 0.0)  # bin of ``coverage`` -> part of what is needed, 0..1
        self._details: list[np.ndarray] = []
        self._todo: tuple[str, ...] = ()
        self._wrong: tuple[str, ...] = ()
        self._ticks = -1

    def __call__(self, frame: np.ndarray, time: float) -> Advice:
        """Take the next frame [H, W, 3] uint8 RGB at ``time`` s; RATE frames a second are measured."""
        if int(time * RATE) > self._ticks:
            self._ticks = int(time * RATE)
            self._look(frame, time)
        k = int((time - FIRST_SECONDS) // ITEM_SECONDS)
        saying = self.items[k] if 0 <= k < len(self.items) else ""
        return Advice(time, saying, self._wrong, self._todo[:AT_ONCE], bool(self.seen) and not self._todo)

    @property
    def last_word(self) -> float:
        """Time at which the last item ends, s."""
        return FIRST_SECONDS + len(self.items) * ITEM_SECONDS

    def said(self, until: float) -> tuple[Said, ...]:
        """The items shown before ``until`` s, with their times."""
        return said(self.items, until)

    def close(self) -> None:
        """Free the detector."""
        self._locate.close()

    def _look(self, frame: np.ndarray, time: float) -> None:
        place = self._locate(frame, time)
        if not place.found:
            self._wrong = ("no face: look into the camera, in good light",)
            return
        image = crop(frame, place.crop_from_frame, SIZE)
        landmarks = measure(self._mesh, image[None])[0][0]
        self._details.append(detail_of(image))
        self._wrong = tuple(self._faults(image, landmarks, place))
        if self._wrong:
            return
        found = measures(landmarks[None])
        self.seen.append(np.concatenate(list(found.values())))
        share = shares(dict(zip(found, np.stack(self.seen, 1))), np.ones(len(self.seen), bool))
        part = len(self.seen) / (self._seconds * RATE)  # share of the finished recording's measured frames
        share = {name: value * part for name, value in share.items()}
        self._todo = missing(share)
        self.parts = {name: min(1.0, value / NEEDED) for name, value in share.items()}

    def _faults(self, image: np.ndarray, landmarks: np.ndarray, place) -> Iterator[str]:
        lightness = float(np.median(skin_colours(image, landmarks)[:, 0]))
        usual = np.median(np.stack(self._details), 0)
        if place.second_face:
            yield "a second face: be alone in the picture"
        if lightness < DARK:
            yield "too dark: turn on a light"
        if lightness > BRIGHT or (image[FACE].min(-1) >= 250).mean() > BURNT:
            yield "too bright: turn away from the light"
        if self._reduced * SIZE / np.sqrt(np.linalg.det(place.crop_from_frame[:, :2])) < NEAR:
            yield "too far away: come closer"
        if (self._details[-1] < BLURRED * usual).any():
            yield "blurred: move more slowly"


def code_words(today: date) -> tuple[str, ...]:
    """Texts for a person to say or hold up: that they agree, the date, and three different random words."""
    chosen: list[str] = []
    while len(chosen) < RANDOM:
        word = secrets.choice(WORDS)
        chosen += [] if word in chosen else [word]
    return (AGREE, f"{today.day} {today:%B} {today.year}", *chosen)


def said(items: Sequence[str], until: float) -> tuple[Said, ...]:
    """The items of a guide that were shown before ``until`` s of a recording, with their times."""
    spans = ((FIRST_SECONDS + k * ITEM_SECONDS, item) for k, item in enumerate(items))
    return tuple(Said(item, start, min(start + ITEM_SECONDS, until)) for start, item in spans if start < until)


def guided(
    frames: Generator[tuple[float, np.ndarray], None, None],
    guide: Guide,
    show: Callable[[np.ndarray, Advice], str],
    seconds: float,
    least: float = LEAST_SECONDS,
) -> Iterator[tuple[float, np.ndarray]]:
    """Pass on a camera's frames, unchanged, until the recording is long enough.

    Args:
        frames: pairs of time in s and image [H, W, 3] uint8 RGB; closed at the end.
        guide: measures them and gives the advice.
        show: gets every frame and the advice; "stop" ends the recording.
        seconds: maximum length. least: minimum length, s; the recording also continues until the last word ends.
    """
    with closing(frames):
        for time, frame in frames:
            if time >= seconds:
                return
            advice = guide(frame, time)
            wish = show(frame, advice)
            yield time, frame
            if wish == "stop" or (advice.enough and time >= max(least, guide.last_word)):
                return


def to_json(words: CodeWords) -> bytes:
    """Encode a record of code words as JSON."""
    return (json.dumps(dataclasses.asdict(words), indent=1) + "\n").encode()


def from_json(content: bytes, video_sha256: str, name: str) -> CodeWords:
    """Read and check a record of code words.

    Args:
        content: of the file. video_sha256: of the recording beside it. name: the file's name, for errors.

    Raises:
        ConsentMissing: the record is damaged or belongs to another recording.
    """
    from pydantic import TypeAdapter

    try:
        words = TypeAdapter(CodeWords).validate_json(decoded(content))
    except ValueError:  # no text, or an error of pydantic
        raise ConsentMissing(
            f"{name}: expected the words of a recording, as `mystudio record` writes them, but it is "
            f"damaged; remove it or record again"
        ) from None
    if words.video_sha256 != video_sha256:
        raise ConsentMissing(
            f"{name}: its words are for another recording, or the recording was changed since; move "
            f"it away or record again"
        )
    return words


def mouth_moved(words: CodeWords, landmarks: np.ndarray, times: np.ndarray, valid: np.ndarray) -> CodeWords:
    """Measure how much the mouth's opening changed while each item was shown.

    Args:
        words: the record. landmarks: [T, 478, 3] in crops. times: [T] s. valid: [T] bool.

    Returns:
        The record, each item with the range of the mouth's opening (5th to 95th percentile, in eye distances). The
        range is None if fewer than three frames show the face.
    """
    opening = measures(landmarks)["mouth_open"]
    out = []
    for item in words.said:
        shown = opening[valid & (times >= item.start) & (times < item.end)]
        moved = float(np.subtract(*np.percentile(shown, (95, 5)))) if len(shown) >= 3 else None
        out.append(dataclasses.replace(item, mouth=moved))
    return dataclasses.replace(words, said=tuple(out))


def now() -> str:
    """The current time, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def draw(frame: np.ndarray, advice: Advice) -> np.ndarray:
    """Mirror the frame and write the advice on it; [H, W, 3] uint8 RGB."""
    import cv2

    picture = np.ascontiguousarray(frame[:, ::-1])
    height, scale = len(picture), max(0.5, len(picture) / 720)
    lines = [(text, (255, 90, 70)) for text in advice.wrong]
    lines += [(text, (255, 255, 255)) for text in (advice.todo if not advice.say else ())]
    for k, (text, colour) in enumerate(lines):
        _write(cv2, picture, text, (height // 30, height // 14 * (k + 1)), scale, colour)
    if advice.say:
        _write(cv2, picture, f"say: {advice.say}", (height // 30, height - height // 14), 1.6 * scale, (120, 255, 120))
    return picture


def _write(cv2, picture: np.ndarray, text: str, place: tuple[int, int], scale: float, colour) -> None:
    for shade, width in (((0, 0, 0), 5), (colour, 2)):
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, max(1, round(width * scale)), cv2.LINE_AA
        )
