"""Cover the driver's face in frames into which the avatar cannot be pasted, so that no frame shows it.

The face is blurred where it must be: at its place in the frames before and after, and wherever the detectors see a
face at all. Near a frame with a face, the avatar's last picture is drawn over the blur.
"""

from __future__ import annotations

import numpy as np

from selfscan.face import align
from selfscan.face.detect import Detection, Detector
from selfscan.types import Array, Observation

HOLD = 0.5  # s from a frame of the same shot that shows the face: so long the avatar is still drawn
FACE, FACE_Y = 0.8, 0.55  # side of the covered square and height of its middle in the crop, in sides of the crop
GROWS, WIDEST = 1.0, 1.6  # sides a second by which it grows with the time from a frame that shows the face; at most
WIDER = 1.8  # side of the covered square / width of a detected face
BLUR = 0.12  # sigma of the blur / side of the covered square: no feature of a face survives it


class Cover:
    """Covers the driver's face in the frames of one driving clip.

    Args:
        seen: the driving clip as measured.
        shown: [T] bool: the avatar is pasted into the frame; other frames are covered.
    """

    def __init__(self, seen: Observation, shown: Array):
        self._seen, self._shown = seen, np.asarray(shown, bool)
        self._shots = seen.track.shots
        self._detector: Detector | None = None
        self._before = list[Detection]()  # hidden faces of the frame before: they are found in most frames, not in all

    def holds(self, index: int) -> bool:
        """Whether a frame near this one, in the same shot, shows the face: its picture still fits here."""
        return self._away(index) <= HOLD

    def __call__(self, frame: Array, index: int) -> Array:
        """Cover the face.

        Args:
            frame: [H, W, 3] uint8 of the driving clip. index: its index in the clip.
        Returns: [H, W, 3] uint8; the frame itself where no face is known or seen.
        """
        for crop_from_frame, size in self._places(frame, index):
            frame = _blurred(frame, crop_from_frame, size)
        return frame

    def close(self) -> None:
        """Free the detector."""
        if self._detector:
            self._detector.close()

    def _places(self, frame: Array, index: int) -> list[tuple[Array, int]]:
        """Squares to cover: crop_from_frame [2, 3] and side of the crop, px."""
        size, transforms = self._seen.alignment.size, self._seen.alignment.crop_from_frame
        places = []
        for near in self._neighbours(index):
            late = abs(float(self._seen.track.times[index] - self._seen.track.times[near]))
            where = transforms[index] if self._away(index) <= HOLD else transforms[near]
            places.append((_around_face(where, size, min(FACE + GROWS * late, WIDEST)), size))
        self._detector = self._detector or Detector()
        seen = [*self._detector(frame), *self._detector.turned(frame)]
        if not places and not seen:  # a shot without a known face: it may show one in profile or partly hidden
            seen = self._detector.hidden(frame)
            seen, self._before = seen or self._before, seen
        for face in seen:
            side = WIDER * max(face.side, 1.0)
            places.append((align.similarity(np.array(size / side), np.array(0.0), face.centre, size), size))
        return places

    def _neighbours(self, index: int) -> list[int]:
        """The nearest frames that show the face, before and after: in the same shot; in a cross-fade in both shots."""
        spans = [shot for shot in self._shots if shot.start <= index < shot.stop]
        for first, last in self._seen.track.cuts:
            if first <= index < last:
                spans = [shot for shot in self._shots if shot.start < last and shot.stop > first]
        found = set[int]()
        for span in spans:
            known = np.flatnonzero(self._shown[span]) + span.start
            found |= {int(known[known < index][-1])} if (known < index).any() else set()
            found |= {int(known[known > index][0])} if (known > index).any() else set()
        return sorted(found)

    def _away(self, index: int) -> float:
        """Seconds to the nearest frame of the same shot that shows the face; infinite without one."""
        times = self._seen.track.times
        shot = next(shot for shot in self._shots if shot.start <= index < shot.stop)
        known = np.flatnonzero(self._shown[shot]) + shot.start
        return float(np.abs(times[known] - times[index]).min()) if len(known) else np.inf


def _around_face(crop_from_frame: Array, size: int, factor: float) -> Array:
    """A square of ``factor`` sides of the crop around the middle of its face."""
    scale, angle, _ = align.decompose(crop_from_frame, size)
    middle = align.apply(align.invert(crop_from_frame), np.array([[0.5 * size, FACE_Y * size]]))[0]
    return align.similarity(scale / factor, angle, middle, size)


def _blurred(frame: Array, crop_from_frame: Array, size: int) -> Array:
    """The frame with a soft disc of it blurred beyond recognition."""
    import cv2

    patch = align.crop(frame, crop_from_frame, size)
    patch = cv2.GaussianBlur(patch, (0, 0), BLUR * size, borderType=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:size, :size] + 0.5
    radius = np.hypot(x - size / 2, y - size / 2) / (size / 2)
    mask = np.clip((1 - radius) / 0.15, 0, 1)
    return align.paste(frame, patch, crop_from_frame, (mask * mask * (3 - 2 * mask)).astype(np.float32))
