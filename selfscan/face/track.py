"""Video to face track: detect faces, follow them, choose one, and interpolate and mark its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import selfscan.checkpoints
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints
from selfscan.errors import NoFaceFound, SecondFace
from selfscan.face import align
from selfscan.face.detect import SAME_FACE, Detection, Detector
from selfscan.face.facemesh import INPUT_SIZE, FaceMesh, load_facemesh
from selfscan.face.headpose import head_pose
from selfscan.face.landmarks import MESH, OUTER_EYE_CORNERS
from selfscan.io import video
from selfscan.types import NUM_LANDMARKS, FaceTrack, Progress, silent

DETECT_EVERY = 10  # frames between two detections of further faces
MIN_PRESENCE = 0.5  # mediapipe's own threshold for a face in the region
ROI_SCALE = 1.5  # side of the region / side of the face's box, as in the network's training
FOLLOW_SHARE = 0.4  # of the widest face's width; narrower faces (insets, posters) are not followed
SECOND_SHARE = 0.5  # of the followed face's width; another face at least this wide is a second face
SECOND_SECONDS = 1.0  # s without interruption after which a second face counts
MAX_FACES = 4  # faces followed at once
MIN_FRAMES = 3  # frames; a shorter track is not joined to the chosen face

Sighting = tuple[np.ndarray, float]  # landmarks [478, 3] px, presence


def track(
    path: str | Path,
    progress: Progress = silent,
    second_face_stops: bool = False,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    warn: Callable[[str], object] = video.unwarned,
) -> FaceTrack:
    """Follow the largest and most central face of a clip.

    Args:
        path: the clip.
        progress: called with ("track", frames done, frames in all).
        second_face_stops: reject a clip that shows a second face for a second or longer.
        checkpoints: of the same clip; stored chunks are not tracked again.
        warn: called with sentences on what reading the clip changed; see ``video.read``.
    Returns:
        The face in every frame. Gaps are marked invalid and interpolated; at the clip's ends the nearest value is held.
    Raises:
        UnreadableVideo, VideoTooLarge: see ``video.probe``.
        NoFaceFound: no frame shows a face.
        SecondFace: the clip shows a second face for a second or longer, and ``second_face_stops`` is set.
    """
    info = video.probe(path)
    total = info.frames_estimate
    for text in info.warnings:
        warn(text)
    times, size = [], (0, 0)
    faces: dict[int, dict[int, Sighting]] = {}  # number of a face -> frame -> sighting
    for part in _followed(path, checkpoints, lambda done: progress("track", done, max(total, done)), warn):
        for number, frame, sighting in _sightings(part):
            faces.setdefault(number, {})[frame] = sighting
        times += part["times"].tolist()
        size = (int(part["size"][0]), int(part["size"][1])) if len(part["times"]) else size
    if not faces:
        raise NoFaceFound(
            f"{path}: expected a face, found none in {len(times)} frames; use a clip in good light whose face is "
            f"upright and at least 4 % of the picture's width"
        )
    result = _face_track(list(faces.values()), np.array(times), size)
    if second_face_stops:
        _refuse_second_face(path, result)
    return result


def _followed(path: str | Path, checkpoints: Checkpoints, tell, warn) -> Iterator[Arrays]:
    """Chunks of frames with the faces seen in them; the entry "last" marks the last chunk."""
    done, part = 0, None
    while part is None or not part["last"]:
        found = checkpoints.get(f"track{done:07d}")
        if found is None:
            break
        part, done = found, done + len(found["times"])
        tell(done)
        yield part
    if part is not None and part["last"]:
        return
    follower = Follower()
    try:
        if part is not None:
            follower.go_on(
                [(n, sighting) for n, frame, sighting in _sightings(part) if frame == done - 1], done, int(part["born"])
            )
        frames = islice(video.read(path, warn=warn), done, None)
        while part is None or not part["last"]:
            start, part = done, _follow_some(follower, frames, done, tell)
            done += len(part["times"])
            checkpoints.put(f"track{start:07d}", part)
            yield part
    finally:
        follower.close()


def _follow_some(follower: Follower, frames: Iterator, done: int, tell) -> Arrays:
    """Track the next chunk: times [n] s; for m sightings the frame, number, landmarks [m, 478, 3] px and presence."""
    times, size, seen = [], (0, 0), []
    for time, image in islice(frames, selfscan.checkpoints.CHUNK):
        seen += [(number, done + len(times), *sighting) for number, sighting in follower.step(image).items()]
        times.append(time)
        size = (image.shape[1], image.shape[0])
        tell(done + len(times))
    number, frame, points, presence = zip(*seen) if seen else ((), (), np.zeros((0, NUM_LANDMARKS, 3), np.float32), ())
    return {
        "times": np.array(times, np.float64),
        "size": np.array(size),
        "number": np.array(number, np.int64),
        "frame": np.array(frame, np.int64),
        "points": np.array(points, np.float32),
        "presence": np.array(presence, np.float64),
        "born": np.array(follower.born),
        "last": np.array(len(times) < selfscan.checkpoints.CHUNK),
    }


def _sightings(part: Arrays) -> Iterator[tuple[int, int, Sighting]]:
    """Triples of a face's number, frame and sighting, in order of time."""
    for number, frame, points, presence in zip(*(part[name] for name in ("number", "frame", "points", "presence"))):
        yield int(number), int(frame), (points, float(presence))


class Follower:
    """Tracks every large face of a stream: the landmarks of a frame give the region in the next frame.

    Grishchenko et al., Attention Mesh, 2020 (arXiv:2006.10962), figure 1.
    """

    def __init__(self, mesh: FaceMesh | None = None):
        self._live: dict[int, Sighting] = {}  # number of a face -> its sighting in the previous frame
        self._mesh, self._detector, self._index, self.born = mesh or load_facemesh(), Detector(), 0, 0

    def go_on(self, seen: list[tuple[int, Sighting]], index: int, born: int) -> None:
        """Continue another follower: its last sightings, its number of frames, and its number of faces so far."""
        self._live, self._index, self.born = dict(seen), index, born

    def step(self, frame: np.ndarray) -> dict[int, Sighting]:
        """Find the faces of the next frame.

        Args:
            frame: [H, W, 3] uint8 RGB.
        Returns:
            Number -> landmarks and presence; a face keeps its number until it is lost.
        """
        self._follow(frame)
        if not self._live or self._index % DETECT_EVERY == 0:
            self._detect(frame)
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

    def _detect(self, frame: np.ndarray) -> None:
        found = self._detector(frame)
        widest = max([face_width(points) for points, _ in self._live.values()] + [d.width for d in found], default=0)
        for detection in found:
            if len(self._live) >= MAX_FACES or detection.width < FOLLOW_SHARE * widest:
                return
            if any(detection.is_near(_centre(points)) for points, _ in self._live.values()):
                continue
            points, _ = _measure(self._mesh, frame, [_region_of_detection(detection)])[0]
            sighting = _measure(self._mesh, frame, [_region_of_landmarks(points)])[0]
            if sighting[1] >= MIN_PRESENCE and not self._taken(sighting[0]):
                self._live[self.born] = sighting
                self.born += 1

    def _taken(self, points: np.ndarray) -> bool:
        """Whether a followed face already covers these points."""
        centres = [_centre(others) for others, _ in self._live.values()]
        return any(np.linalg.norm(centre - _centre(points)) < SAME_FACE * face_width(points) for centre in centres)


def _face_track(faces: list[dict[int, Sighting]], times: np.ndarray, size: tuple[int, int]) -> FaceTrack:
    chosen = _chosen(faces, size)
    count = len(times)
    score, valid = np.zeros(count, np.float32), np.zeros(count, bool)
    landmarks = np.zeros((count, NUM_LANDMARKS, 3), np.float32)
    for index, (points, presence) in chosen.items():
        landmarks[index], score[index], valid[index] = points, presence, True
    fill_gaps(landmarks, valid)
    second = np.zeros(count, bool)
    for face in faces:
        for index, (points, _) in face.items():
            other = index not in chosen or chosen[index][0] is not points
            second[index] |= other and face_width(points) >= SECOND_SHARE * face_width(landmarks[index])
    return FaceTrack(landmarks, head_pose(landmarks), score, valid, times, size, second)


def _chosen(faces: list[dict[int, Sighting]], size: tuple[int, int]) -> dict[int, Sighting]:
    """The face that is widest and most central over the clip, with its sightings before and after gaps."""
    ranked = sorted(faces, key=lambda face: -_weight(face, size))
    chosen = dict(ranked[0])
    width = np.median([face_width(points) for points, _ in chosen.values()])
    for face in ranked[1:]:
        ratio = np.median([face_width(points) for points, _ in face.values()]) / width
        if len(face) >= MIN_FRAMES and 0.5 < ratio < 2 and not chosen.keys() & face.keys():
            chosen |= face
    return chosen


def _weight(face: dict[int, Sighting], size: tuple[int, int]) -> float:
    return sum(prominence(sighting, size) for sighting in face.values())


def prominence(sighting: Sighting, size: tuple[int, int]) -> float:
    """Prominence of a face in a frame of ``size`` (width, height) px: grows with width, presence and centrality."""
    points, presence = sighting
    middle = np.array(size) / 2
    off = float(np.linalg.norm(_centre(points) - middle) / np.linalg.norm(middle))
    return presence * face_width(points) * (1 - 0.5 * min(off, 1))


def fill_gaps(values: np.ndarray, valid: np.ndarray) -> None:
    """Interpolate linearly, in place, where ``valid`` is False; hold the first and last valid value at the ends.

    Args:
        values: [T, ...] float.
        valid: [T] bool, at least one True.
    """
    known = np.flatnonzero(valid)
    for index in np.flatnonzero(~valid):
        after = np.searchsorted(known, index)
        a, b = known[max(after - 1, 0)], known[min(after, len(known) - 1)]
        share = 0.0 if a == b else (index - a) / (b - a)
        share = min(max(share, 0.0), 1.0)
        values[index] = values[a] + share * (values[b] - values[a])


def _refuse_second_face(path: str | Path, result: FaceTrack) -> None:
    since = None
    for time, second in zip(result.times, result.second_face):
        since = (time if since is None else since) if second else None
        if since is not None and time - since >= SECOND_SECONDS:
            raise SecondFace(
                f"{path}: expected one person, but a second face is there from {since:.1f} s on; record alone or cut it"
            )


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


def _centre(points: np.ndarray) -> np.ndarray:
    return (points[MESH, :2].min(0) + points[MESH, :2].max(0)) / 2
