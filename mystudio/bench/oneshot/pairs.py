"""Who is driven by whom: actors, whose true cross-reenactment is drawn, and real clips, split in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mystudio.errors import StudioError
from mystudio.motion.retarget import find_neutral
from mystudio.oneshot.measure import at_rest
from mystudio.types import Performance, Progress, silent
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import head_pose
from selfscan.face.measures import measures
from selfscan.face.observe import iter_crops, observe
from selfscan.io.pixels import to_tensor, to_uint8
from selfscan.scan.consent import make_consent
from selfscan.types import Alignment, Consent, Coverage, FaceTrack, Observation, Scan

REST = 5  # frames of the driver at rest that begin a performance: a neutral face is the mean of five
FPS = 25.0
FICTIONAL = Consent("Synthetic actor", "This person does not exist.", "2026-01-01T00:00:00Z", "0" * 64, True)


@dataclass(frozen=True)
class Portrayed:
    """A person as one or a few photos show them."""

    name: str
    images: np.ndarray  # [K, S, S, 3] uint8 RGB aligned crops
    landmarks: np.ndarray  # [K, 478, 3] float32 in crops
    consent: Consent = FICTIONAL

    def scan(self) -> Scan:
        """The photos as a scan, for engines."""
        count = len(self.images)
        covered, quality = Coverage(measures(self.landmarks), {}), np.ones(count, np.float32)
        rows = np.arange(count)
        return Scan(self.images, self.landmarks, rows, quality, {}, covered, self.consent, "none")


@dataclass(frozen=True)
class Driving:
    """A driver at rest and in some motions."""

    name: str
    images: np.ndarray  # [N, S, S, 3] uint8 RGB aligned crops
    landmarks: np.ndarray  # [N, 478, 3] float32 in crops
    rest_image: np.ndarray  # [S, S, 3]
    rest: np.ndarray  # [478, 3] float32: the driver's neutral face

    def performance(self) -> Performance:
        """The motions as a clip for engines: ``REST`` frames at rest, then one shot for each motion."""
        images = np.concatenate([np.repeat(self.rest_image[None], REST, 0), self.images])
        marks = np.concatenate([np.repeat(self.rest[None], REST, 0), self.landmarks]).astype(np.float32)
        count, size = len(images), images.shape[1]
        mouth, irises = patches.mouth_and_irises(to_tensor(images), torch.as_tensor(marks))
        seen, ones = np.ones(count, bool), np.ones(count, np.float32)
        cuts = np.array([(k, k) for k in range(REST, count)], np.int64).reshape(-1, 2)
        pixels = (size * marks).astype(np.float32)
        track = FaceTrack(pixels, head_pose(pixels), ones, seen, np.arange(count) / FPS, (size, size), ~seen, cuts=cuts)
        same = Alignment(np.repeat(np.eye(2, 3)[None], count, 0), size)
        return Performance(
            Observation(track, same, marks, ones, f"{self.name}.mp4", "0" * 64), to_uint8(mouth), to_uint8(irises)
        )


@dataclass(frozen=True)
class Pair:
    """A person, a driver, and what the person would show in the driver's motions."""

    person: Portrayed
    driving: Driving
    truth: np.ndarray  # [N, S, S, 3] uint8; empty if it is not needed
    truth_marks: np.ndarray  # [N, 478, 3] in crops
    look: np.ndarray | None = None  # [38] factors of an actor who drives

    def angles(self) -> np.ndarray:
        """Angle [N] between the heads of the nearest photo and of the true frame, degrees."""
        a, b = (_turns(marks) for marks in (self.person.landmarks, self.truth_marks))
        cosine = (np.einsum("kij,nij->nk", a, b) - 1) / 2
        return np.degrees(np.arccos(np.clip(cosine, -1, 1))).min(1)


@dataclass(frozen=True)
class ActorPairs:
    """Actors of one seed: every person is driven by some of the others."""

    people: int = 16
    motions: int = 6  # of everybody
    photos: int = 1  # motions of each person that are the photos, other ones for each person; the rest drives
    drivers: int = 2  # of each person
    leak: int = 200  # further drivers, one motion each, of whom pictures may show nothing; 0 = leakage is not measured
    size: int = 256  # px of a drawn crop
    seed: int = 20260  # no training data of the package has it

    def __post_init__(self):
        if self.motions <= self.photos:
            raise StudioError(
                f"expected more motions than photos, got {self.motions} and {self.photos}; the photos are some of "
                "a person's motions, and the others drive"
            )
        if not 0 < self.drivers < self.people:
            raise StudioError(
                f"expected 1 to {self.people - 1} drivers of {self.people} people, got {self.drivers}; draw more people"
            )


def actor_pairs(case: ActorPairs, progress: Progress = silent) -> tuple[list[Pair], list[Pair]]:
    """Draw actors. Returns: pairs with truth, and pairs without it whose drivers have known looks, for leakage."""
    from mystudio.actors.dataset import DatasetSettings, draw
    from mystudio.actors.factors import look_of

    grid = DatasetSettings(case.people * case.motions, case.size, case.seed, case.motions, people=case.people)
    drawn = []
    for index in range(grid.count):
        drawn.append(draw(grid, index))
        progress("actors", index + 1, grid.count + case.people + 2 * case.leak)
    images = np.stack([image for image, _ in drawn]).reshape(case.people, case.motions, case.size, case.size, 3)
    codes = np.stack([code for _, code in drawn]).reshape(case.people, case.motions, -1)
    marks = _landmarks(images.reshape(-1, *images.shape[2:])).reshape(case.people, case.motions, -1, 3)
    turns = np.arange(case.motions) + np.arange(case.people)[:, None]  # so that photos differ in their motion
    shown, driven = np.split(turns % case.motions, [case.photos], 1)
    people = [Portrayed(f"actor-{case.seed}-{p}", images[p, rows], marks[p, rows]) for p, rows in enumerate(shown)]
    rests = np.stack([at_rest(code, case.size) for code in codes[:, 0]])
    rest_marks = _landmarks(rests)
    pairs = [
        Pair(
            people[p],
            Driving(people[q].name, images[q, rows], marks[q, rows], rests[q], rest_marks[q]),
            images[p, rows],
            marks[p, rows],
            look_of(codes[q, 0]),
        )
        for p, rows in enumerate(driven)
        for q in ((p + 1 + k) % case.people for k in range(case.drivers))
    ]
    return pairs, _leak_pairs(case, people, progress)


def _leak_pairs(case: ActorPairs, people: Sequence[Portrayed], progress: Progress) -> list[Pair]:
    from mystudio.actors.dataset import DatasetSettings, draw
    from mystudio.actors.factors import look_of

    others = DatasetSettings(max(case.leak, 1), case.size, case.seed + 1, takes=1)
    none, found, done = np.zeros((0, case.size, case.size, 3), np.uint8), [], case.people * (case.motions + 1)
    for index in range(case.leak):
        image, code = draw(others, index)
        rest = at_rest(code, case.size)
        marks = _landmarks(np.stack([image, rest]))
        driving = Driving(f"driver-{index}", image[None], marks[:1], rest, marks[1])
        found.append(Pair(people[index % len(people)], driving, none, marks[:0], look_of(code)))
        progress("actors", done + 2 * (index + 1), done + 2 * case.leak)
    return found


@dataclass(frozen=True)
class RealPairs:
    """Real clips: photos of the first half, driven by frames of the second half, which are the truth."""

    clips: Sequence[Path]
    consent: str  # name of the person shown, or who has consented
    photos: int = 1
    frames: int = 16  # of the second half of each clip


def real_pairs(case: RealPairs, progress: Progress = silent) -> list[Pair]:
    """Measure the clips. Raises: NoFaceFound, UnreadableVideo; StudioError: too few frames show the face."""
    return [_split(path, case, progress) for path in case.clips]


def _split(path: Path, case: RealPairs, progress: Progress) -> Pair:
    consent, seen = make_consent(case.consent, path), observe(path, progress=progress)
    usable = seen.track.valid & (seen.presence > 0.5)
    early, late = np.array_split(np.flatnonzero(usable), 2)
    if len(early) < case.photos or len(late) < case.frames:
        raise StudioError(
            f"{path}: expected {case.photos} and {case.frames} frames with a face in its halves, got {len(early)} "
            f"and {len(late)}; name a longer clip"
        )
    first = np.zeros(len(seen), bool)
    first[early] = True
    photos = _spread(early, case.photos) if case.photos > 1 else np.array([find_neutral(seen.landmarks, first)])
    frames, rest = _spread(late, case.frames), find_neutral(seen.landmarks, usable)
    wanted = {*photos.tolist(), *frames.tolist(), rest}
    crops = _crops(seen, wanted)
    marks = seen.landmarks
    shown = np.stack([crops[k] for k in frames])
    person = Portrayed(path.stem, np.stack([crops[k] for k in photos]), marks[photos], consent)
    return Pair(person, Driving(path.stem, shown, marks[frames], crops[rest], marks[rest]), shown, marks[frames])


def _crops(seen: Observation, wanted: set[int]) -> dict[int, np.ndarray]:
    return {index: image for index, image in iter_crops(seen) if index in wanted}


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, evenly chosen, at the middles of equal parts."""
    return rows[((np.arange(count) + 0.5) * len(rows) / count).astype(int)]


def _landmarks(images: np.ndarray, batch: int = 16) -> np.ndarray:
    mesh = load_facemesh()
    parts = [crop_landmarks(mesh, to_tensor(images[k : k + batch]))[0] for k in range(0, len(images), batch)]
    return torch.cat(parts).cpu().numpy()


def _turns(marks: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] of heads [N, 478, 3]."""
    linear = head_pose(marks)[:, :3, :3].astype(np.float64)
    return linear / np.cbrt(np.linalg.det(linear))[:, None, None]
