"""Live driving: the avatar follows a stream of frames, one by one and causally.

The engine gives the codes of each frame (``engines.protocol.Follows``). ``reenact`` uses the whole clip for smoothing,
for the choice of the face and for its neutral expression. Here these use only past frames (``selfscan.face.locate``,
``causal``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mystudio import engines
from mystudio.compute.compilation import Compile, Precision, drawer
from mystudio.live.causal import NeutralSoFar, OneEuro
from mystudio.rendering.render import SMALLEST, enlarge
from mystudio.types import Avatar, Codes, Outcome, Take
from selfscan.face import crowd_picture
from selfscan.face.align import crop, rescale
from selfscan.face.choose import LARGEST, boxes
from selfscan.face.facemesh import load_facemesh
from selfscan.face.locate import Locator
from selfscan.face.observe import measure
from selfscan.io.pixels import to_uint8
from selfscan.types import Array

MEASURED = 256  # px, side of the measured crop; as for takes
FEWEST = 64  # px, least size that ``rate`` leads to
PRESENT = 0.5  # minimum presence of a face in its crop; as for takes


@dataclass(frozen=True)
class LiveSettings:
    """Settings of live driving."""

    crop: float = 2.0  # frames: sigma of the crop's smoothing, over the past only
    rest: float = 4.0  # Hz: cut-off of the codes' one-euro filter at rest; 0 = no filter
    slope: float = 0.5  # Hz added per code unit a second of speed; with rest, the jitter equals that of a take
    ease: float = 0.5  # s, time constant with which a better neutral face replaces the one before
    precision: Precision = "auto"  # of the generator's feature maps; auto: bfloat16 on devices that multiply it fast
    compile: Compile = "no"  # torch.compile of the generator: starts a few seconds later, then draws faster
    size: int | None = None  # px, side of each of the two pictures; by default the generator's, at least 256
    rate: float | None = None  # frames a second: the size is halved until this machine draws so many; by default no
    #   size is halved


@dataclass(frozen=True)
class Followed:
    """One measured frame of the driver, and the codes that the avatar shows for it."""

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
    """An avatar driven live.

    ``follow`` and ``draw`` may run in two threads, each on one frame at a time. Only ``follow`` changes state.

    Args:
        avatar: the avatar to drive. how: the engine's ``ReenactSettings``. settings: settings of live driving.
        device: of the computation; the generator is moved to it.
        face: which face drives where there are several: see ``selfscan.face.choose.check_wanted``.
    Raises: NotOffered: the avatar's engine cannot follow live.
    """

    def __init__(
        self,
        avatar: Avatar,
        how: Any,
        settings: LiveSettings = LiveSettings(),
        device: torch.device | str = "cpu",
        face: str = LARGEST,
    ):
        self._settings, self._avatar = settings, avatar
        self._engine, self._codes_of = engines.of(avatar), engines.following(avatar).follow(avatar, how, device)
        self._device = torch.device(device)
        avatar.generator.to(self._device)
        self._mesh = load_facemesh(device=self._device)
        self._locate = Locator(MEASURED, settings.crop, self._mesh, face)
        full = avatar.generator.resolution
        self.size = settings.size or max(SMALLEST, full)
        self._draw = self._drawer(enough := min(full, 2 ** math.ceil(math.log2(self.size))))  # more would be dropped
        self._cut = False
        self.crowd: bytes | None = None  # PNG that numbers the faces of the first frame with several
        self.forget()
        self._codes = self._codes_of(avatar.neutral[None], avatar.neutral)
        while settings.rate and enough > FEWEST and self._seconds() > 1 / settings.rate:
            self.size = enough = enough // 2
            self._draw = self._drawer(enough)

    def forget(self) -> None:
        """Restart the estimate of the driver's neutral face, for a new driver or when the face is neutral only now."""
        self._steady: dict[str, OneEuro] = {}
        self._neutral_so_far = NeutralSoFar(self._settings.ease)

    @torch.inference_mode()
    def follow(self, frame: Array, time: float) -> Followed:
        """Take the driver's next frame.

        Args:
            frame: [H, W, 3] uint8 RGB. time: s, later than the one before.
        Returns: the codes to show; without a face or finite codes, those of the frame before.
        """
        laps = _Laps()
        place = self._locate(frame, time)
        if place.second_face and self.crowd is None:
            seen = boxes([points for points, _ in self._locate.faces.values()])
            self.crowd = crowd_picture.numbered(frame, seen) if len(seen) else None
        self._cut |= place.is_cut  # also where the first frame after the cut shows no face
        laps("track")
        outcome = Outcome.NO_FACE
        if place.found:
            marks, presence = measure(self._mesh, crop(frame, place.crop_from_frame, MEASURED)[None])
            laps("measure")
            if place.is_new or self._cut:
                self.forget()
                self._cut = False
            if presence[0] > PRESENT:
                codes = self._codes_of(torch.as_tensor(marks), self._neutral_so_far(marks[0], time))
                outcome = Outcome.HELD
                if all(bool(values.isfinite().all()) for values in codes.values()):
                    outcome, self._codes = Outcome.FOLLOWED, self._smoothed(codes, time)
            laps("code")
        return Followed(time, outcome, self._codes, frame, place.crop_from_frame, laps.spent)

    @torch.inference_mode()
    def draw(self, followed: Followed) -> Shown:
        """Draw the avatar beside the driver; see ``Shown``."""
        laps = _Laps()
        image = self._image(followed.codes, followed.time)
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

    def _drawer(self, pixels: int) -> Callable[..., Tensor]:
        settings = self._settings
        return drawer(self._avatar.generator.synthesize, self._device, settings.precision, settings.compile, pixels)

    def _image(self, codes: Codes, time: float) -> Array:
        still = Take(codes, np.zeros(1, np.uint8), np.array([time]), {})
        return to_uint8(self._draw(self._engine.decode(self._avatar, still)))[0]

    @torch.inference_mode()
    def _seconds(self) -> float:
        """Time that the neutral face takes to draw, s: the fastest of four, since the first one also warms up."""
        spent: list[float] = []
        for _ in range(4):
            begun = perf_counter()
            self._image(self._codes, 0.0)
            spent.append(perf_counter() - begun)
        return min(spent)

    def _smoothed(self, codes: Codes, time: float) -> Codes:
        rest, slope = self._settings.rest, self._settings.slope
        return {n: self._steady.setdefault(n, OneEuro(rest, slope))(values, time) for n, values in codes.items()}


class _Laps:
    """Stopwatch: seconds of each named step."""

    def __init__(self):
        self.spent: dict[str, float] = {}
        self._last = perf_counter()

    def __call__(self, name: str) -> None:
        now = perf_counter()
        self.spent[name], self._last = now - self._last, now


def _mark(picture: Array, outcome: Outcome) -> None:
    """Write the outcome into the picture's corner: why the avatar holds its last codes."""
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
