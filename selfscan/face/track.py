"""Video to face track: detect faces, follow them, choose one, and interpolate and mark its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

import selfscan.checkpoints
from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, ShareDone, own_starts, refuse_others
from selfscan.errors import NoFaceFound, SecondFace
from selfscan.face.choose import LARGEST, SECOND_SHARE, Face, check_wanted, choose, crowd
from selfscan.face.cuts import find_cuts
from selfscan.face.follow import Follower, Sighting, centre_of, face_width, prominence
from selfscan.face.headpose import head_pose
from selfscan.io import video
from selfscan.types import NUM_LANDMARKS, WHOLE, Array, FaceTrack, Progress, Span, shots_of, silent

CROP_REACH = 0.85  # half the side of an aligned crop / width of its face
SECOND_SECONDS = 1.0  # s without interruption after which a second face counts


def track(
    path: str | Path,
    progress: Progress = silent,
    second_face_stops: bool = False,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    warn: Callable[[str], object] = video.unwarned,
    face: str = LARGEST,
    span: Span = WHOLE,
) -> FaceTrack:
    """Find the cuts of a clip, and follow one face in every shot: the largest and most central one by default.

    Args:
        path: the clip.
        progress: called with ("track", frames done, frames in all).
        second_face_stops: reject a clip that shows a second face for a second or longer.
        checkpoints: of the same clip; stored chunks are not tracked again.
        warn: called with sentences on what reading the clip changed; see ``video.read``.
        face: which face to follow where there are several: see ``choose.check_wanted``.
        span: the part of the clip that is followed.
    Returns:
        The face in every frame. Gaps are marked invalid and interpolated inside a shot; at a shot's ends the nearest
        value is held. The frames of a cross-fade, which show two pictures, are gaps.
    Raises:
        UnreadableVideo, VideoTooLarge: see ``video.probe``.
        NoFaceFound: no frame shows a face, or ``face`` is a number that does not exist.
        SecondFace: the clip shows a second face for a second or longer, and ``second_face_stops`` is set.
    """
    check_wanted(face)
    info = video.probe(path, span=span)
    total = info.frames_estimate
    for text in info.warnings:
        warn(text)
    times, size, pictures = [], (0, 0), list[Array]()
    faces: dict[int, Face] = {}  # number of a face -> its sightings
    for part in _followed(path, checkpoints, lambda done: progress("track", done, max(total, done)), warn, span):
        for number, frame, sighting in _sightings(part):
            faces.setdefault(number, {})[frame] = sighting
        times += part["times"].tolist()
        pictures += list(part["pictures"])
        size = (int(part["size"][0]), int(part["size"][1])) if len(part["times"]) else size
    if own_starts("track", ()) is not None:  # not divided: each frame is followed from the one before
        raise ShareDone
    if not faces:
        raise NoFaceFound(
            f"{path}: expected a face, found none in {len(times)} frames; use a clip in good light whose face is at "
            f"least 4 % of the picture's width"
        )
    found = list(faces.values())
    if info.stills:  # photos in any order
        cuts = np.repeat(np.arange(1, len(times))[:, None], 2, 1)
    else:
        cuts = find_cuts(_alike(pictures), np.array(times), _most_prominent(faces, len(times), size))
    try:
        result = _face_track(found, np.array(times), size, cuts, face)
    except NoFaceFound as error:
        raise NoFaceFound(f"{path}: {error}") from None
    if second_face_stops and face == LARGEST:
        _refuse_second_face(path, result)
    return result


def _alike(pictures: list[Array]) -> Array:
    """Small pictures [T, h, w] of the first one's size; a clip whose frames change their size has several."""
    import cv2

    height, width = pictures[0].shape
    return np.stack([p if p.shape == (height, width) else cv2.resize(p, (width, height)) for p in pictures])


def _most_prominent(faces: dict[int, Face], count: int, size: tuple[int, int]) -> Array:
    """Landmarks [T, 478, 3] px of a prominent face, the same one until it is lost; NaN where there is none."""
    points, last = np.full((count, NUM_LANDMARKS, 3), np.nan, np.float32), -1
    shown: dict[int, dict[int, Sighting]] = {}  # frame -> number of a face -> sighting
    for number, face in faces.items():
        for frame, sighting in face.items():
            shown.setdefault(frame, {})[number] = sighting
    for frame, seen in sorted(shown.items()):
        if last not in seen:
            last = max(seen, key=lambda number: prominence(seen[number], size))
        points[frame] = seen[last][0]
    return points


def _followed(path: str | Path, checkpoints: Checkpoints, tell, warn, span: Span) -> Iterator[Arrays]:
    """Chunks of frames with the faces seen in them; the entry "last" marks the last chunk."""
    done, part = 0, None
    while part is None or not part["last"]:
        found = checkpoints.get(f"track{done:07d}")
        if found is None or "pictures" not in found:  # the latter: stored by a version that did not look for cuts
            break
        part, done = found, done + len(found["times"])
        tell(done)
        yield part
    if part is not None and part["last"]:
        return
    refuse_others("track")
    follower = Follower()
    try:
        if part is not None:
            seen = [(n, sighting) for n, frame, sighting in _sightings(part) if frame == done - 1]
            follower.go_on(seen, done, int(part["born"]), part["pictures"][-1])
        frames = islice(video.read(path, warn=warn, span=span), done, None)
        while part is None or not part["last"]:
            start, part = done, _follow_some(follower, frames, done, tell)
            done += len(part["times"])
            checkpoints.put(f"track{start:07d}", part)
            yield part
    finally:
        follower.close()


def _follow_some(follower: Follower, frames: Iterator, done: int, tell) -> Arrays:
    """Track the next chunk of n frames, with m sightings of faces; ``pictures`` [n, h, w] serve to find cuts."""
    times, size, seen, pictures = [], (0, 0), [], list[Array]()
    for time, image in islice(frames, selfscan.checkpoints.CHUNK):
        seen += [(number, done + len(times), *sighting) for number, sighting in follower.step(image).items()]
        times.append(time)
        pictures.append(follower.picture if follower.picture is not None else np.zeros((0, 0), np.uint8))
        size = (image.shape[1], image.shape[0])
        tell(done + len(times))
    number, frame, points, presence = zip(*seen) if seen else ((), (), np.zeros((0, NUM_LANDMARKS, 3), np.float32), ())
    return {
        "times": np.array(times, np.float64),
        "size": np.array(size),
        "pictures": _alike(pictures) if pictures else np.zeros((0, 1, 1), np.uint8),
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


def _face_track(faces: list[Face], times: Array, size: tuple[int, int], cuts: Array, wanted: str) -> FaceTrack:
    count = len(times)
    shots = shots_of(cuts, count)
    chosen = choose(faces, size, shots, wanted)
    score, valid = np.zeros(count, np.float32), np.zeros(count, bool)
    landmarks = np.zeros((count, NUM_LANDMARKS, 3), np.float32)
    for index, (points, presence) in chosen.items():
        landmarks[index], score[index], valid[index] = points, presence, True
    for first, last in cuts:
        if valid.sum() > valid[first:last].sum():  # two faces shine through each other in a cross-fade
            score[first:last], valid[first:last] = 0, False
    fill_gaps(landmarks, valid, shots)
    second = np.zeros(count, bool)
    for face in faces:
        for index, (points, _) in face.items():
            other = index not in chosen or chosen[index][0] is not points
            near = wanted == LARGEST or _beside(points, landmarks[index])
            second[index] |= other and near and face_width(points) >= SECOND_SHARE * face_width(landmarks[index])
    return FaceTrack(landmarks, head_pose(landmarks), score, valid, times, size, second, cuts, crowd(faces))


def _beside(other: Array, chosen: Array) -> bool:
    """Whether another face lies partly in the crop of the chosen one: half the side of the crop, and half its width."""
    reach = CROP_REACH * face_width(chosen) + face_width(other) / 2
    return bool(np.abs(centre_of(other) - centre_of(chosen)).max() < reach)


def fill_gaps(values: Array, valid: Array, shots: tuple[slice, ...] | None = None) -> None:
    """Interpolate linearly, in place, where ``valid`` is False; hold the first and last valid value at a shot's ends.

    A shot without a valid value gets the nearest one of the shots beside it.

    Args:
        values: [T, ...] float.
        valid: [T] bool, at least one True.
        shots: parts of the clip between which nothing is interpolated; None = one.
    """
    every = np.flatnonzero(valid)
    for shot in shots or (slice(0, len(values)),):
        known = every[(every >= shot.start) & (every < shot.stop)]
        for index in np.flatnonzero(~valid[shot]) + shot.start:
            if not len(known):
                values[index] = values[every[np.abs(every - index).argmin()]]
                continue
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
                f"{path}: expected one person, but a second face is there from {since:.1f} s on; record alone, cut it, "
                "or choose a face with --face",
                result.crowd,
                path,
            )
