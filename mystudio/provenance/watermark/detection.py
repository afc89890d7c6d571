"""Detection: find the pattern's scale and position in the whitened sum of the frames, then decode the bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import fft

from mystudio.errors import StudioError
from mystudio.provenance.watermark.embedding import check_images
from mystudio.provenance.watermark.pattern import OUTER, TILE, WatermarkSettings, cell_size, oscillations, waves
from mystudio.provenance.watermark.payload import BITS, CODED, decode, encode

CELL = 1.5  # px: frames are resized so that an unscaled pattern has cells of this side
WIDEST = 2.4  # scales from 1 / WIDEST to WIDEST, relative to the unscaled pattern, are searched
STEP = 1.01  # ratio of scales: the picture's border moves by less than a quarter of the shortest wave
PEAKS = 6  # number of best places that are refined, in two rounds
LARGEST = 1.5  # limit of a wave's strength, as a multiple of the rms of its neighbours
WAYS = 6  # tests at one place: mirrored or not; bits unread, decoded or equal to a known payload
NEARBY = 27**3  # places that refinement can reach from one: three rounds of 3 scales and 3 x 3 shifts
SMALLEST = 48  # px: smaller frames are not searched


@dataclass(frozen=True)
class Detection:
    """The result of looking for a mark in an image or a clip."""

    payload: int | None  # None = no mark, or its bits cannot be decoded
    marked: bool  # whether a mark of this key was detected
    score: float  # evidence above chance, in standard deviations of chance
    false_positive: float  # upper bound of the probability that an unmarked clip gives this evidence
    scale: float = 1.0  # size of the pattern relative to that of an unscaled frame of this size
    mirrored: bool = False  # left and right are exchanged
    soft: np.ndarray | None = None  # [192] received code bits, positive for +1; None = no mark


class Evidence:
    """The whitened sum of frames, added one by one in constant memory."""

    def __init__(self):
        self.count = 0
        self.shape: tuple[int, ...] | None = None  # shape of a frame
        self.total: np.ndarray | None = None  # [h, w] float32

    def add(self, image: np.ndarray) -> None:
        """Add a frame [H, W, 3] uint8 RGB.

        Raises: StudioError: another type, shape or size than before.
        """
        check_images(image)
        if image.ndim != 3 or self.shape not in (None, image.shape):
            raise StudioError(f"expected frames of one size, got {image.shape} after {self.shape}; scale them alike")
        residual = whiten(image)
        self.total = residual if self.total is None else self.total + residual
        self.shape, self.count = image.shape, self.count + 1

    def judge(self, settings: WatermarkSettings | None = None, known: Sequence[int] = ()) -> Detection:
        """Look for a mark in the sum; arguments and result as those of ``detect``.

        Raises: StudioError: no frame was added.
        """
        settings = settings or WatermarkSettings()
        if self.shape is None or self.total is None:
            raise StudioError("expected at least one frame, got none; give an image or a clip with frames")
        if min(self.shape[:2]) < SMALLEST or not self.total.any():
            return Detection(None, False, 0.0, 1.0)
        verdict = self._look(self.total, settings, known, False)
        if not verdict.marked:
            other = self._look(np.ascontiguousarray(self.total[:, ::-1]), settings, known, True)
            verdict = min(verdict, other, key=lambda one: one.false_positive)
        return verdict

    @staticmethod
    def _look(total: np.ndarray, settings: WatermarkSettings, known: Sequence[int], mirrored: bool) -> Detection:
        search = _Search(total, settings.key)
        best = min((search.read(place, known) for place in search.places()), key=lambda one: one.log_chance)
        chance = best.log_chance + np.log(float(search.tried * NEARBY * WAYS))
        return _verdict(best, chance, mirrored, settings.false_positive)


def _verdict(best: _Reading, log_chance: float, mirrored: bool, limit: float) -> Detection:
    chance, score = float(np.exp(np.clip(log_chance, -690, 0))), float(np.sqrt(2 * best.evidence))
    if chance > limit:
        return Detection(None, False, score, chance)
    return Detection(best.payload, True, score, chance, best.place.cell / CELL, mirrored, best.soft)


def whiten(image: np.ndarray) -> np.ndarray:
    """Whiten a picture to suppress its own structure: luma minus its local mean, at unit local contrast.

    Args:
        image: [H, W, 3] uint8 RGB.
    Returns: [h, w] float32, resized so that an unscaled pattern has cells of 1.5 px.
    """
    height, width = image.shape[:2]
    factor = CELL / cell_size(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    luma = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)
    luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    detail = luma - cv2.GaussianBlur(luma, (0, 0), 4.5)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 3.0))
    return detail / (contrast + 0.3) ** 1.3  # textured places hide the mark, so they get less weight


def detect(
    images: np.ndarray | Iterable[np.ndarray], settings: WatermarkSettings | None = None, known: Sequence[int] = ()
) -> Detection:
    """Look for a mark in an image or a clip, without the original.

    All frames are summed, because the pattern stands still while the picture moves. The false-positive probability is
    bounded for any picture over all keys. A sum of A_k cos(phase_k) with independent uniform phases exceeds t with a
    probability of at most exp(-t^2 / sum A_k^2) (Chernoff, as I_0(x) <= exp(x^2 / 4)). The bound is multiplied by the
    number of places, scales and payloads tried.

    Args:
        images: [H, W, 3] or [T, H, W, 3] uint8 RGB, or frames one by one.
        settings: key and the highest false-positive rate.
        known: expected payloads; they are recognised even if the bits cannot be decoded.
    Returns: the detection.
    Raises: StudioError: no frames, wrong type or shape, or frames of several sizes.
    """
    evidence = Evidence()
    for image in images[None] if isinstance(images, np.ndarray) and images.ndim == 3 else images:
        evidence.add(image)
    return evidence.judge(settings, known)


def detect_parts(
    frames: Iterable[np.ndarray],
    settings: WatermarkSettings | None = None,
    known: Sequence[int] = (),
    window: int = 100,
) -> list[tuple[int, int, Detection]]:
    """Look for marks in every section of a clip, for clips that are marked in parts or show several avatars.

    Args:
        frames: [H, W, 3] uint8 RGB, one by one.
        settings, known: see ``detect``; the bound holds for each section separately.
        window: frames of a section.
    Returns: first frame, end (not included) and detection, for each section with a mark.
    Raises: StudioError: see ``detect``.
    """
    found, start, evidence = [], 0, Evidence()
    for end, frame in enumerate(frames, start=1):
        evidence.add(frame)
        if evidence.count == window:
            found.append((start, end, evidence.judge(settings, known)))
            start, evidence = end, Evidence()
    if evidence.count or not found:
        found.append((start, start + evidence.count, evidence.judge(settings, known)))
    return [part for part in found if part[2].marked]


@dataclass(frozen=True)
class _Place:
    """A candidate position of the pattern: pixel x shows its point x / cell - shift."""

    cell: float  # px
    shift: np.ndarray  # [2] cells, down and right
    z: float = 0.0  # score of the synchronisation waves, in standard deviations of chance


@dataclass(frozen=True)
class _Reading:
    """The decoded bits at a place, with their evidence."""

    place: _Place
    payload: int | None
    soft: np.ndarray  # [192]
    evidence: float  # t^2 / sum A_k^2 of all waves whose sign is known
    log_chance: float  # natural logarithm of the bound, before places are counted


class _Search:
    """Searches one whitened sum for the pattern of one key."""

    def __init__(self, total: np.ndarray, key: str):
        self.total, self.waves, self.tried = total, waves(key), 0
        self.sync = self.waves.bit < 0
        self.wave_vectors = np.stack([self.waves.ky, self.waves.kx]) / TILE  # cycles a cell

    def places(self) -> list[_Place]:
        """Return the likeliest places, refined: anywhere at any scale, and at the corner, as in uncropped frames."""
        count = round(np.log(WIDEST) / np.log(STEP))
        anywhere, corner = zip(*(self.at_scale(cell) for cell in CELL * STEP ** np.arange(-count, count + 1)))
        return [self.refined(place) for places in (anywhere, corner) for place in _highest(places)]

    def at_scale(self, cell: float) -> tuple[_Place, _Place]:
        """Return the best place at a scale, and the place that starts at the corner."""
        values, phase = self.values(cell)[self.sync], self.waves.phase[self.sync]
        ky, kx = self.waves.ky[self.sync], self.waves.kx[self.sync]
        spectrum = np.zeros((TILE, TILE // 2 + 1), np.complex64)
        spectrum[ky, kx] = values * np.exp(-1j * phase)
        spectrum[-ky[kx == 0], 0] = spectrum[ky[kx == 0], 0].conj()
        z = np.asarray(fft.irfft2(spectrum, (TILE, TILE))) * (TILE * TILE / 2 / _spread(values))
        self.tried += z.size
        top = np.unravel_index(z.argmax(), z.shape)
        return _Place(cell, np.array(top, float), float(z[top])), _Place(cell, np.zeros(2), float(z[0, 0]))

    def refined(self, place: _Place) -> _Place:
        """Return the best nearby place, to a thousandth of the scale and a quarter of a cell."""
        middle = np.array(self.total.shape) / 2
        for step, reach in ((0.004, 0.5), (0.002, 0.5), (0.001, 0.25)):
            near = []
            for cell in place.cell * np.array([1, 1 - step, 1 + step]):
                shift = place.shift + middle * (1 / cell - 1 / place.cell)  # keeps the picture's centre fixed
                near += self.around(cell, shift, reach)
            place = max(near, key=lambda one: one.z)
        return place

    def around(self, cell: float, shift: np.ndarray, reach: float) -> list[_Place]:
        """Nine shifts at one scale."""
        values = self.values(cell)[self.sync] * np.exp(-1j * self.waves.phase[self.sync])
        shifts = shift + reach * np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        z = (values * np.exp(2j * np.pi * shifts @ self.wave_vectors[:, self.sync])).real.sum(1) / _spread(values)
        return [_Place(cell, one, float(height)) for one, height in zip(shifts, z)]

    def values(self, cell: float) -> np.ndarray:
        """Return every wave's complex strength at a scale, with unit rms among its neighbours and clipped."""
        height, width = self.total.shape
        rows, columns = oscillations(height, cell).conj(), oscillations(width, cell).conj()
        half = np.concatenate([rows.real, rows.imag]) @ self.total
        half = half[: OUTER + 1] + 1j * half[OUTER + 1 :]
        spectrum = np.concatenate([half[:0:-1].conj(), half]) @ columns.T
        power = cv2.blur(np.abs(spectrum) ** 2, (5, 5), borderType=cv2.BORDER_REFLECT_101)
        spectrum /= np.sqrt(power) + 1e-9
        spectrum /= np.maximum(1, np.abs(spectrum) / LARGEST)
        return spectrum[self.waves.ky + OUTER, self.waves.kx]

    def read(self, place: _Place, known: Sequence[int]) -> _Reading:
        """Decode the bits at a place, and return the likeliest payload."""
        turned = self.values(place.cell) * np.exp(-1j * self.waves.phase)
        turned *= np.exp(2j * np.pi * place.shift @ self.wave_vectors)
        soft = np.bincount(self.waves.bit[~self.sync], turned[~self.sync].real, CODED)
        sync = _evidence(turned[self.sync].real.sum(), turned[self.sync])
        readings = [_Reading(place, None, soft, sync, -sync)]
        decoded = decode(soft)
        unread: list[tuple[int, float]] = [] if decoded is None else [(decoded, 2.0**BITS)]
        for payload, choices in [*unread, *((p, len(known)) for p in known)]:
            both = sync + _evidence(float(soft @ encode(payload)), turned[~self.sync])
            # the sum of two exponents, each at most exponentially distributed, is at most a gamma variable
            readings.append(_Reading(place, payload, soft, both, np.log(choices) + np.log1p(both) - both))
        return min(readings, key=lambda one: one.log_chance)


def _evidence(total: float, values: np.ndarray) -> float:
    """Return the exponent of the bound: -ln P(a sum of such waves with random phases exceeds the total)."""
    return max(0.0, float(total)) ** 2 / max(float(np.sum(np.abs(values) ** 2)), 1e-12)


def _spread(values: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.abs(values) ** 2) / 2)) + 1e-12


def _highest(places: Sequence[_Place]) -> list[_Place]:
    """Return the PEAKS best places over all scales, without their neighbours."""
    kept: list[int] = []
    for index in np.argsort([-place.z for place in places]):
        if len(kept) < PEAKS and all(abs(index - other) > 2 for other in kept):
            kept.append(index)
    return [places[index] for index in kept]
