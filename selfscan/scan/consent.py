"""Consent for a scan: the record, the words shown while recording, and a separate consent clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfscan.checkpoints import NO_CHECKPOINTS, Checkpoints
from selfscan.errors import ConsentMissing, SecondPerson
from selfscan.face.observe import observe
from selfscan.io.digest import clip_digest
from selfscan.scan.guide import mouth_moved, now
from selfscan.scan.identity import SAME, Faces, check_one_person, faces_of, likeness
from selfscan.types import CodeWords, Consent, ConsentClip, ConsentRecording, Observation, Progress, silent

STATEMENT = "I am the person shown in this video, or I have this person's consent to make an avatar from it."
FICTIONAL = "The person shown in this video does not exist."
LEAST_SECONDS = 2.0  # s for which a consent clip must show the face from the front


def make_consent(
    name: str,
    video: str | Path,
    fictional: bool = False,
    words: CodeWords | None = None,
    others: Sequence[tuple[str | Path, CodeWords | None]] = (),
) -> Consent:
    """Make the consent record of a clip: the person agrees, or does not exist.

    Args:
        name: name of the person, or of the fictional character.
        video: the clip to which the consent applies.
        fictional: True if the person does not exist.
        words: the words shown while the clip was recorded.
        others: further clips of the same scan, each with its words.

    Returns:
        The record, with the current time and the clip's digest.

    Raises:
        ConsentMissing: the name is empty.
    """
    if not name.strip():
        raise ConsentMissing("consent: expected the name of the person who is shown or has agreed, got none")
    statement, digest = FICTIONAL if fictional else STATEMENT, clip_digest(video)
    more = tuple(ConsentRecording(clip_digest(clip), said) for clip, said in others)
    return Consent(name.strip(), statement, now(), digest, fictional, words, others=more)


def with_mouth(consent: Consent, seen: Sequence[Observation]) -> Consent:
    """Add to each shown word of a consent how much the mouth moved meanwhile. Args: seen: the clips, in its order."""
    own = _moved(consent.words, seen[0]) if consent.words else None
    others = tuple(
        replace(other, words=_moved(other.words, one) if other.words else None)
        for other, one in zip(consent.others, seen[1:])
    )
    return replace(consent, words=own, others=others)


def with_clip(
    consent: Consent,
    scanned: Faces,
    clip: str | Path,
    words: CodeWords | None = None,
    progress: Progress = silent,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Consent:
    """Add a separate consent clip, after comparing its face with the scan's face.

    Args:
        consent: the scan's record. scanned: faces of the scan. clip: the clip in which the person agrees.
        words: the words shown while it was recorded.
        checkpoints: of the same clip; stored chunks are not measured again.

    Raises:
        SecondPerson: the clip shows another person, or two people one after the other.
        SecondFace, NoFaceFound, UnreadableVideo, VideoTooLarge: see ``observe``.
        ConsentMissing: the clip or the scan shows too little of the face to compare.
    """
    seen = observe(clip, progress=progress, second_face_stops=True, checkpoints=checkpoints)
    faces = faces_of(seen, progress, checkpoints)
    check_one_person(clip, faces)
    short = "the clip of consent" if faces.seconds < LEAST_SECONDS else "the scan" if not scanned.seconds else ""
    if short:
        raise ConsentMissing(
            f"{clip}: expected a face from the front for {LEAST_SECONDS:g} s, so that it can be "
            f"compared, but {short} does not show it; look into the camera"
        )
    like = likeness(faces, scanned)
    if like < SAME:
        raise SecondPerson(
            f"{clip}: expected the person of the scan, but this face is another one (likeness "
            f"{like:.2f}, at least {SAME} is needed); let the person of the scan record the consent"
        )
    return replace(consent, clip=ConsentClip(seen.video_sha256, like, SAME, _moved(words, seen) if words else None))


def _moved(words: CodeWords, seen: Observation) -> CodeWords:
    times = seen.track.times + seen.span.start  # words are shown at times of the whole recording
    return mouth_moved(words, seen.landmarks, times, seen.track.valid)
