"""Frame quality: is the face sharp, well lit, uncovered and inside the picture, and if not, why?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from selfscan.checkpoints import NO_CHECKPOINTS, Arrays, Checkpoints, in_chunks
from selfscan.face.headpose import canonical_head, head_pose
from selfscan.face.landmarks import EXTREMES, OUTER_EYE_CORNERS, SKIN
from selfscan.face.measures import measures
from selfscan.face.observe import iter_crops
from selfscan.scan.coverage import eyes_closed
from selfscan.types import Observation, Progress, check_shape, silent

SIZE = 256  # px, side of the crop that is measured, independent of the scan's size
FACE = (slice(64, 218), slice(51, 205))  # rows and columns of that crop that show the face

PRESENT = 0.5  # minimum presence from the landmark network
OUTSIDE = 0.05  # maximum share of the landmarks outside the frame
DARK, BRIGHT, BURNT = 10.0, 95.0, 0.25  # median L* of the skin; share of the face at 250 or more of 255
BLURRED = 0.55  # detail / usual detail: 7 px of motion blur in a 256 px crop are below it; calm clips stay above 0.7
AROUND = 1.0  # s before and after a frame that define its usual detail, since a turned head shows less
LEAST_USUAL = 0.65  # share of the clip's median detail; if the usual detail is lower, the whole part is out of focus
COVERED = 0.1  # share of the visible skin points with a foreign colour; clean clips stay below 0.05 in 99 % of frames
FOREIGN = 11.0  # distance in (L*/2, a*, b*) from the point's median colour over the clip
FAST = 4.0  # eye distances a second; faster motion is blurred and leaves the smoothed crop
NEAR_CUT = 0.11  # s from the nearest frame of another shot: closer frames are not used; single photos are 1 s apart
FACING = 0.45  # cosine between a skin point's normal and the camera; points below it are hidden or seen obliquely


@dataclass(frozen=True)
class Quality:
    """Quality of every frame of a clip."""

    score: np.ndarray  # [T] float32 0..1, 0 where rejected
    reason: np.ndarray  # [T] str reason for rejection; "" = usable
    closed: np.ndarray  # [T] bool eyes closed: usable, but a scan takes few of them
    sharpness: np.ndarray  # [T] float32 detail relative to the usual detail
    lightness: np.ndarray  # [T] float32 L* of the skin, 0..100
    covered: np.ndarray  # [T] float32 share of the visible skin with a foreign colour
    speed: np.ndarray  # [T] float32 eye distances a second

    def __post_init__(self):
        for name in ("reason", "closed", "sharpness", "lightness", "covered", "speed"):
            check_shape(name, getattr(self, name), (len(self.score),))

    @property
    def usable(self) -> np.ndarray:
        """[T] bool: frames without a reason for rejection."""
        return self.reason == ""

    def rejects(self) -> dict[str, int]:
        """Reason -> number of frames, the most frequent first."""
        reasons, counts = np.unique(self.reason[~self.usable], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {str(reasons[i]): int(counts[i]) for i in order}


def assess(observation: Observation, progress: Progress = silent, checkpoints: Checkpoints = NO_CHECKPOINTS) -> Quality:
    """Assess every frame of a clip in one decoding pass.

    Sharpness is the face's detail relative to the usual detail around that time. The lower value of x and y counts, so
    that motion blur in either direction lowers it. A face is covered if skin points differ in colour from their median
    over the clip: hands, cups, microphones, passers-by.

    Args:
        observation: the clip.
        progress: called with ("quality", frames done, frames in all).
        checkpoints: of the same clip; stored chunks are not measured again.

    Returns:
        Score and reject reason of each frame.
    """
    t = len(observation)
    detail, burnt, colours = np.zeros((t, 2)), np.zeros(t), np.zeros((t, len(SKIN), 3), np.float32)

    def work(chunk: np.ndarray, crops: Iterator[np.ndarray]) -> Arrays:
        rows = []
        for index, image in zip(chunk.tolist(), crops):
            rows.append(
                (
                    detail_of(image),
                    (image[FACE].min(-1) >= 250).mean(),
                    skin_colours(image, observation.landmarks[index]),
                )
            )
            progress("quality", index + 1, t)
        return dict(zip(("detail", "burnt", "colours"), map(np.array, zip(*rows))))

    for part, found in in_chunks(
        checkpoints,
        "quality",
        range(t),
        lambda start: iter_crops(observation, SIZE, start),
        work,
        lambda done: progress("quality", done, t),
    ):
        detail[part], burnt[part], colours[part] = found["detail"], found["burnt"], found["colours"]
    seen = observation.track.valid & (observation.presence >= PRESENT)
    sharpness = _sharpness(detail, observation.track.times, seen)
    lightness = np.median(colours[..., 0], 1)
    covered = _covered(colours, observation.landmarks, seen)
    speed = _speed(observation)
    reason = _reasons(observation, seen, sharpness, lightness, burnt, covered, speed)
    score = _score(sharpness, lightness, covered, speed, seen) * (reason == "")
    gap = measures(observation.landmarks, observation.track.pose)["eyes_open"]
    return Quality(
        score.astype(np.float32),
        reason,
        eyes_closed(gap, seen) & seen,
        sharpness.astype(np.float32),
        lightness.astype(np.float32),
        covered.astype(np.float32),
        speed.astype(np.float32),
    )


def _reasons(observation, seen, sharpness, lightness, burnt, covered, speed) -> np.ndarray:
    width, height = observation.track.frame_size
    x, y = np.moveaxis(observation.track.landmarks[..., :2], -1, 0)
    outside = ((x < 0) | (x > width) | (y < 0) | (y > height)).mean(1)
    found = {  # the first true condition is the reason
        "no face": ~seen,
        "second face": observation.track.second_face,
        "cut off by the picture's edge": outside > OUTSIDE,
        "at a cut": _near_cut(observation),
        "too dark": lightness < DARK,
        "too bright": (lightness > BRIGHT) | (burnt > BURNT),
        "face covered": covered > COVERED,
        "blurred": sharpness < BLURRED,
        "moving too fast": speed > FAST,
    }
    return np.select(list(found.values()), list(found), "").astype(np.str_)


def _score(sharpness, lightness, covered, speed, seen) -> np.ndarray:
    usual = np.median(lightness[seen]) if seen.any() else 50.0
    sharp = np.clip((sharpness - BLURRED / 2) / (1 - BLURRED / 2), 0, 1)
    light = 1 - 0.5 * np.clip(np.abs(lightness - usual) / 20, 0, 1)
    clear = 1 - 0.5 * np.clip(covered / COVERED, 0, 1)
    calm = 1 - 0.5 * np.clip(speed / FAST, 0, 1)
    return sharp * light * clear * calm


def detail_of(image: np.ndarray) -> np.ndarray:
    """Strength [2] of fine detail along x and y of a crop [SIZE, SIZE, 3], relative to the face's contrast."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[FACE].astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.8)  # removes sensor noise
    along = [cv2.Sobel(smooth, cv2.CV_32F, dx, 2 - dx, ksize=3).std() for dx in (2, 0)]
    return np.array(along) / (grey.std() + 5)


def _sharpness(detail: np.ndarray, times: np.ndarray, seen: np.ndarray) -> np.ndarray:
    if not seen.any():
        return np.zeros(len(detail))
    known, at = detail[seen], times[seen]
    low, high = np.searchsorted(at, times - AROUND), np.searchsorted(at, times + AROUND, "right")
    clip = np.median(known, 0)
    usual = np.stack([np.median(known[a:b], 0) if b > a else clip for a, b in zip(low, high)])
    return (detail / np.clip(usual, LEAST_USUAL * clip + 1e-6, clip + 1e-6)).min(1)


def skin_colours(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """CIELAB colours [S, 3] at the skin points of a crop [SIZE, SIZE, 3], L* in 0..100."""
    import cv2

    smooth = cv2.GaussianBlur(image, (0, 0), 3)
    x, y = np.clip(landmarks[list(SKIN), :2] * SIZE, 0, SIZE - 1).astype(int).T
    points = smooth[y, x][None].astype(np.float32) / 255
    return cv2.cvtColor(points, cv2.COLOR_RGB2LAB)[0]


def _covered(colours: np.ndarray, landmarks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    if not seen.any():
        return np.zeros(len(colours))
    away = colours - np.median(colours[seen], 0)
    away[..., 0] -= np.median(away[..., 0], 1, keepdims=True)  # ignore changes of light
    away[..., 0] /= 2
    foreign = np.linalg.norm(away, axis=-1) > FOREIGN
    visible = _facing(landmarks)
    return (foreign & visible).sum(1) / np.maximum(visible.sum(1), 1)


def _facing(landmarks: np.ndarray) -> np.ndarray:
    """[T, S] bool: skin points that face the camera, if the head is a sphere."""
    head = canonical_head()
    inside = head[list(EXTREMES)].mean(0) + [0, 0, 0.3]
    outward = head[list(SKIN)] - inside
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    turn = head_pose(landmarks)[:, :3, :3].astype(np.float64)
    turn /= np.cbrt(np.linalg.det(turn))[:, None, None]
    return -(outward @ turn[:, 2].T).T > FACING


def _near_cut(observation: Observation) -> np.ndarray:
    """[T] bool: frames of a cross-fade, and frames beside a cut: encoders start anew there, and many cuts are soft."""
    track = observation.track
    near = np.zeros(len(track), bool)
    for first, last in track.cuts:
        near[first:last] = True
    for before, after in zip(track.shots, track.shots[1:]):
        near[before] |= track.times[after.start] - track.times[before] < NEAR_CUT
        near[after] |= track.times[after] - track.times[before.stop - 1] < NEAR_CUT
    return near


def _speed(observation: Observation) -> np.ndarray:
    """Mean speed [T] of the landmarks, eye distances a second: the larger of the steps before and after in the shot."""
    points = observation.track.landmarks.astype(np.float64)
    eyes = np.linalg.norm(points[:, OUTER_EYE_CORNERS[0]] - points[:, OUTER_EYE_CORNERS[1]], axis=-1)
    if len(points) < 2:
        return np.zeros(len(points))
    step = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1).mean(1)
    pace = step / np.maximum(np.diff(observation.track.times), 1e-3) / np.maximum(eyes[1:], 1e-6)
    pace[[shot.stop - 1 for shot in observation.track.shots[:-1]]] = 0  # a cut is no motion
    return np.maximum(np.append(pace, 0), np.insert(pace, 0, 0))
