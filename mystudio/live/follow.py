"""The avatar follows a stream of frames, one by one, from past frames alone.

The engine gives the codes of each frame (``engines.protocol.Follows``). What ``reenact`` takes from the whole clip
(smoothing, the choice of the face and of its neutral expression) uses the frames seen so far here
(``selfscan.face.locate``, ``causal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from mystudio import engines
from mystudio.compute.compilation import Compile, Precision, drawer
from mystudio.live.causal import NeutralSoFar, OneEuro
from mystudio.rendering.render import SMALLEST, enlarge
from mystudio.types import Avatar, Codes, Outcome, Take
from selfscan.face.align import crop, rescale
from selfscan.face.facemesh import load_facemesh
from selfscan.face.locate import Locator
from selfscan.face.observe import measure
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

MEASURED = 256  # px, side of the crop that is measured: as for takes
PRESENT = 0.5  # least presence of a face in its crop: as for takes


@dataclass(frozen=True)
class LiveSettings:
    """How the avatar follows live."""

    crop: float = 2.0  # frames: sigma of the crop's smoothing, over the past only
    rest: float = 4.0  # Hz: cut-off of the codes' one-euro filter for a face at rest; 0 = no filter
    slope: float = 0.5  # Hz more for each code unit a second of speed; these two shake as little as a take
    ease: float = 0.5  # s over which a better neutral face takes the place of the last one
    precision: Precision = "auto"  # of the generator's feature maps; auto: bfloat16 where it is multiplied fast
    compile: Compile = "no"  # torch.compile of the generator: a few seconds at the start for faster pictures
    size: int | None = None  # px, side of each of the two pictures; None = the generator's, at least 256


@dataclass(frozen=True)
class Followed:
    """What one frame of the driver asks of the avatar."""

    time: float  # s
    outcome: Outcome  # FOLLOWED, NO_FACE or HELD
    codes: Codes  # of one frame
    frame: Array  # [H, W, 3] uint8 RGB
    crop_from_frame: Array  # [2, 3] for a crop of MEASURED px
    spent: dict[str, float]  # stage -> s


@dataclass(frozen=True)
class Shown:
    """The picture of one frame: the driver on the left, the avatar on the right."""

    time: float  # s
    outcome: Outcome
    codes: Codes  # of one frame
    picture: Array  # [size, 2 size, 3] uint8 RGB
    spent: dict[str, float]  # stage -> s


class Live:
    """An avatar that follows.

    ``follow`` and ``draw`` may run in two threads, each on one frame at a time; only ``follow`` remembers anything.

    Args:
        avatar: whose generator draws. how: the engine's ``ReenactSettings``. settings: of live alone.
        device: that does the work.
    Raises: NotOffered: the avatar's engine cannot follow.
    """

    def __init__(
        self,
        avatar: Avatar,
        how: Any,
        settings: LiveSettings = LiveSettings(),
        device: torch.device | str = "cpu",
    ):
        self._settings, self._avatar = settings, avatar
        self._engine, self._codes_of = engines.of(avatar), engines.following(avatar).follow(avatar, how, device)
        self._device = torch.device(device)
        avatar.generator.to(self._device)
        self._draw = drawer(avatar.generator.synthesize, self._device, settings.precision, settings.compile)
        self._mesh = load_facemesh(device=self._device)
        self._locate = Locator(MEASURED, settings.crop, self._mesh)
        self.size = settings.size or max(SMALLEST, avatar.generator.resolution)
        self.forget()
        self._codes = self._codes_of(avatar.neutral[None], avatar.neutral)

    def forget(self) -> None:
        """Look for the driver's neutral face anew: somebody else may be there, or the face at rest is seen only now."""
        self._steady: dict[str, OneEuro] = {}
        self._neutral_so_far = NeutralSoFar(self._settings.ease)

    @torch.inference_mode()
    def follow(self, frame: Array, time: float) -> Followed:
        """Take the driver's next frame.

        Args:
            frame: [H, W, 3] uint8 RGB. time: s, later than the last one.
        Returns: the code that the avatar must show; a frame without a face keeps the last one.
        """
        laps = _Laps()
        place = self._locate(frame, time)
        laps("track")
        outcome = Outcome.NO_FACE
        if place.found:
            marks, presence = measure(self._mesh, crop(frame, place.crop_from_frame, MEASURED)[None])
            laps("measure")
            if place.is_new:
                self.forget()
            if presence[0] > PRESENT:
                codes = self._codes_of(torch.as_tensor(marks), self._neutral_so_far(marks[0], time))
                outcome = Outcome.HELD
                if all(bool(values.isfinite().all()) for values in codes.values()):
                    outcome, self._codes = Outcome.FOLLOWED, self._smoothed(codes, time)
            laps("code")
        return Followed(time, outcome, self._codes, frame, place.crop_from_frame, laps.spent)

    @torch.inference_mode()
    def draw(self, followed: Followed) -> Shown:
        """Draw the avatar beside the driver."""
        laps = _Laps()
        still = Take(followed.codes, np.zeros(1, np.uint8), np.array([followed.time]), {})
        image = to_uint8(self._draw(self._engine.decode(self._avatar, still)))[0]
        laps("synthesize")
        driver = crop(followed.frame, rescale(followed.crop_from_frame, self.size / MEASURED), self.size)
        if followed.outcome != Outcome.FOLLOWED:
            _mark(driver, followed.outcome)
        picture = np.concatenate([driver, enlarge(image, self.size)], 1)
        laps("compose")
        return Shown(followed.time, followed.outcome, followed.codes, picture, followed.spent | laps.spent)

    def __call__(self, frame: Array, time: float) -> Shown:
        """Follow and draw one frame."""
        return self.draw(self.follow(frame, time))

    def close(self) -> None:
        """Free the detector."""
        self._locate.close()

    def _smoothed(self, codes: Codes, time: float) -> Codes:
        rest, slope = self._settings.rest, self._settings.slope
        return {n: self._steady.setdefault(n, OneEuro(rest, slope))(values, time) for n, values in codes.items()}


class _Laps:
    """Seconds since the last lap, by name."""

    def __init__(self):
        self.spent: dict[str, float] = {}
        self._last = perf_counter()

    def __call__(self, name: str) -> None:
        now = perf_counter()
        self.spent[name], self._last = now - self._last, now


def _mark(picture: Array, outcome: Outcome) -> None:
    """Write in the picture's corner that the avatar is held, and why."""
    import cv2

    words = outcome.word.replace("_", " ")
    scale, (left, top) = len(picture) / 512, (len(picture) // 32, len(picture) // 12)
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(
            picture,
            words,
            (left, top),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            colour,
            max(1, round(width * scale * 2)),
            cv2.LINE_AA,
        )
