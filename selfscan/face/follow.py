"""Follow every large face of a stream of frames: landmarks of a frame give the region in the next frame."""

from __future__ import annotations

import numpy as np
import torch

from selfscan.face import align, cuts
from selfscan.face.causal_cuts import change
from selfscan.face.detect import SAME_FACE, Detection, Detector
from selfscan.face.facemesh import INPUT_SIZE, FaceMesh, load_facemesh
from selfscan.face.landmarks import MESH, OUTER_EYE_CORNERS

DETECT_EVERY = 10  # frames between two detections of further faces
MIN_PRESENCE = 0.5  # mediapipe's own threshold for a face in the region
ROI_SCALE = 1.5  # side of the region / side of the face's box, as in the network's training
FOLLOW_SHARE = 0.4  # of the widest face's width; narrower faces (insets, posters) are not followed
MAX_FACES = 4  # faces followed at once
SUSPECT = 0.5 * cuts.CHANGED  # texture without a match: perhaps a cut

Sighting = tuple[np.ndarray, float]  # landmarks [478, 3] px, presence


class Follower:
    """Tracks every large face of a stream: the landmarks of a frame give the region in the next frame.

    Grishchenko et al., Attention Mesh, 2020 (arXiv:2006.10962), figure 1.
    """

    def __init__(self, mesh: FaceMesh | None = None):
        self._live: dict[int, Sighting] = {}  # number of a face -> its sighting in the previous frame
        self._mesh, self._detector, self._index, self.born = mesh or load_facemesh(), Detector(), 0, 0
        self.picture: np.ndarray | None = None  # the last frame, small (``cuts.small``)

    def go_on(self, seen: list[tuple[int, Sighting]], index: int, born: int, picture: np.ndarray) -> None:
        """Continue another follower: its last sightings, its numbers of frames and faces so far, its last picture."""
        self._live, self._index, self.born, self.picture = dict(seen), index, born, picture

    def step(self, frame: np.ndarray) -> dict[int, Sighting]:
        """Find the faces of the next frame.

        After what may be a cut, faces are only followed where the detector finds them again.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            Number -> landmarks and presence; a face keeps its number until it is lost.
        """
        before, self.picture = self.picture, cuts.small(frame)
        anew = before is None or _may_be_cut(before, self.picture)
        self._follow(frame)
        if anew or not self._live or self._index % DETECT_EVERY == 0:
            self._detect(frame, anew)
        self._index += 1
        return dict(self._live)

    def close(self) -> None:
        """Free the detector."""
        self._detector.close()

    def _follow(self, frame: np.ndarray) -> None:
        if not self._live:
            return
        before, self._live = self._live, {}
        sightings = _measure(self._mesh, frame, [_region_of_landmarks(points) for points, _ in before.values()])
        for (number, (last, _)), sighting in zip(before.items(), sightings):
            same_size = 0.5 < face_width(sighting[0]) / face_width(last) < 2
            if sighting[1] >= MIN_PRESENCE and same_size and not self._taken(sighting[0]):
                self._live[number] = sighting

    def _detect(self, frame: np.ndarray, anew: bool) -> None:
        found = self._detector(frame)
        if anew and found:
            self._find_again(frame, found)
        self._add(frame, found)
        if not self._live and (anew or self._index % DETECT_EVERY == 0):
            self._add(frame, self._detector.turned(frame))

    def _add(self, frame: np.ndarray, found: list[Detection]) -> None:
        """Follow the faces that are not followed yet."""
        widest = max([face_width(points) for points, _ in self._live.values()] + [d.width for d in found], default=0)
        for detection in found:
            if len(self._live) >= MAX_FACES or detection.width < FOLLOW_SHARE * widest:
                return
            if any(detection.is_near(centre_of(points)) for points, _ in self._live.values()):
                continue
            sighting = self._sight(frame, detection)
            if sighting[1] >= MIN_PRESENCE and not self._taken(sighting[0]):
                self._live[self.born] = sighting
                self.born += 1

    def _find_again(self, frame: np.ndarray, found: list[Detection]) -> None:
        """Keep the faces that the detector finds where they were followed to, measured anew, and drop the others."""
        before, self._live = self._live, {}
        for number, (points, _) in before.items():
            near = next((detection for detection in found if detection.is_near(centre_of(points))), None)
            sighting = self._sight(frame, near) if near else None
            if sighting and sighting[1] >= MIN_PRESENCE and not self._taken(sighting[0]):
                self._live[number] = sighting

    def _sight(self, frame: np.ndarray, detection: Detection) -> Sighting:
        points, _ = _measure(self._mesh, frame, [_region_of_detection(self._detector.upright(frame, detection))])[0]
        return _measure(self._mesh, frame, [_region_of_landmarks(points)])[0]

    def _taken(self, points: np.ndarray) -> bool:
        """Whether a followed face already covers these points."""
        centres = [centre_of(others) for others, _ in self._live.values()]
        return any(np.linalg.norm(centre - centre_of(points)) < SAME_FACE * face_width(points) for centre in centres)


def _may_be_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two small pictures may belong to different shots: faces are then detected anew, which harms nothing."""
    return before.shape != after.shape or change(before, after) > SUSPECT


def prominence(sighting: Sighting, size: tuple[int, int]) -> float:
    """Prominence of a face in a frame of ``size`` (width, height) px: grows with width, presence and centrality."""
    points, presence = sighting
    middle = np.array(size) / 2
    off = float(np.linalg.norm(centre_of(points) - middle) / np.linalg.norm(middle))
    return presence * face_width(points) * (1 - 0.5 * min(off, 1))


def _measure(mesh: FaceMesh, frame: np.ndarray, regions: list[np.ndarray]) -> list[Sighting]:
    pixels = np.stack([align.crop(frame, region, INPUT_SIZE) for region in regions])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(next(mesh.buffers())).div(255)
    with torch.no_grad():
        landmarks, presence = mesh(batch.contiguous(memory_format=torch.channels_last))
    points = align.apply(align.invert(np.stack(regions)), landmarks.double().cpu().numpy())
    return list(zip(points.astype(np.float32), presence.tolist()))


def _region_of_landmarks(points: np.ndarray) -> np.ndarray:
    right, left = points[list(OUTER_EYE_CORNERS), :2].astype(np.float64)
    angle = np.arctan2(*(left - right)[::-1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    level = points[MESH, :2] @ turn
    low, high = level.min(0), level.max(0)
    return _region(turn @ ((low + high) / 2), (high - low).max(), angle)


def _region_of_detection(detection: Detection) -> np.ndarray:
    return _region(detection.centre, detection.side, detection.angle)


def _region(centre: np.ndarray, side: float, angle: float) -> np.ndarray:
    scale = INPUT_SIZE / (ROI_SCALE * max(side, 1.0))
    return align.similarity(np.array(scale), np.array(-angle), np.asarray(centre), INPUT_SIZE)


def face_width(points: np.ndarray) -> float:
    """Width of the landmarks [478, 3] of a face, without its irises; in their unit."""
    x = points[MESH, 0]
    return float(x.max() - x.min())


def centre_of(points: np.ndarray) -> np.ndarray:
    """Middle [2] of the box of a face's landmarks [478, 3]; in their unit."""
    return (points[MESH, :2].min(0) + points[MESH, :2].max(0)) / 2
