"""Several clips of one person as one clip: their frames count one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfscan.errors import NoFaceFound, SecondPerson
from selfscan.scan.identity import SAME, SAME_PHOTO, Faces, check_one_person, likeness
from selfscan.scan.quality import Quality
from selfscan.types import Alignment, Array, FaceTrack, IdentityCheck, Observation, ScanClip

GAP = 1.0  # s between the last frame of a clip and the first one of the next
OF_FRAMES = ("score", "reason", "closed", "sharpness", "lightness", "covered", "speed")  # fields of a Quality


def clips_of(seen: Sequence[Observation]) -> tuple[ScanClip, ...]:
    """Where the frames of each clip begin when the clips follow each other; the first clip keeps its times."""
    found: list[ScanClip] = []
    first, start = 0, float(seen[0].track.times[0])
    for one in seen:
        own = float(one.track.times[0])
        found.append(ScanClip(Path(one.video).name, one.video_sha256, first, len(one), start, one.span.start + own))
        first += len(one)
        start += float(one.track.times[-1]) - own + GAP
    return tuple(found)


def joined(seen: Sequence[Observation]) -> Observation:
    """One observation with the frames of all clips; path, digest, part and frame size are those of the first.

    Pictures cannot be read through it: its frames come from several files.
    """
    if len(seen) == 1:
        return seen[0]
    clips, tracks = clips_of(seen), [one.track for one in seen]
    track = FaceTrack(
        landmarks=np.concatenate([track.landmarks for track in tracks]),
        pose=np.concatenate([track.pose for track in tracks]),
        score=np.concatenate([track.score for track in tracks]),
        valid=np.concatenate([track.valid for track in tracks]),
        times=np.concatenate([t.times - t.times[0] + clip.start for t, clip in zip(tracks, clips)]),
        frame_size=tracks[0].frame_size,
        second_face=np.concatenate([track.second_face for track in tracks]),
        cuts=np.concatenate([track.cuts + clip.first for track, clip in zip(tracks, clips)]),
    )
    crops = np.concatenate([one.alignment.crop_from_frame for one in seen])
    return replace(
        seen[0],
        track=track,
        alignment=Alignment(crops, seen[0].alignment.size),
        landmarks=np.concatenate([one.landmarks for one in seen]),
        presence=np.concatenate([one.presence for one in seen]),
        warnings=tuple(f"{clip.name}: {words}" for one, clip in zip(seen, clips) for words in one.warnings),
    )


def joined_quality(parts: Sequence[Quality]) -> Quality:
    """The quality of all clips' frames; each was judged among the frames of its own clip."""
    return Quality(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in OF_FRAMES})


def joined_faces(faces: Sequence[Faces]) -> Faces:
    """The faces of all clips, for their mean: the times stay those of each clip."""
    return Faces(*(np.concatenate([getattr(one, name) for one in faces]) for name in ("start", "total", "count")))


def own_frames(frames: Array, clip: ScanClip) -> Array:
    """Those of some frames [N] of all clips that belong to one clip, counted from its own first frame."""
    return frames[(frames >= clip.first) & (frames < clip.first + clip.frames)] - clip.first


def check_same_person(seen: Sequence[Observation], faces: Sequence[Faces], photos: Sequence[bool]) -> IdentityCheck:
    """Reject clips that do not all show the same one person: each by itself, and against the first one.

    Args: faces: of each clip. photos: whether it is single photos.
    Raises: SecondPerson. NoFaceFound: one of several clips shows no face from the front, so it cannot be compared.
    """
    found = [check_one_person(one.video, face, still) for one, face, still in zip(seen, faces, photos)]
    lowest = [check.lowest for check in found if check.lowest is not None]
    for one, face, still in zip(seen[1:], faces[1:], photos[1:]):
        like, least = likeness(face, faces[0]), SAME_PHOTO if still or photos[0] else SAME
        if np.isnan(like):
            hidden = seen[0] if not faces[0].seconds else one
            raise NoFaceFound(
                f"{hidden.video}: expected a face from the front, so that it can be compared with the other clips, "
                "found none; look into the camera for two seconds"
            )
        if like < least:
            raise SecondPerson(
                f"{one.video}: expected the person of {seen[0].video}, but this face is another one (likeness "
                f"{like:.2f}, at least {least} is needed); scan clips of one person together"
            )
        lowest.append(like)
    threshold = max(check.threshold for check in found)
    return IdentityCheck(sum(check.seconds for check in found), min(lowest, default=None), threshold)
