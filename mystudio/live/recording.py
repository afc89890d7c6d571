"""Record a self-scan: a camera's frames to a clip, and the shown words to a file beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from itertools import count
from pathlib import Path

import numpy as np

from mystudio.errors import OutputFailed
from mystudio.rendering import render
from mystudio.storage.journal import write_bytes
from mystudio.storage.products import product
from selfscan.errors import UnknownContainer, UnreadableVideo
from selfscan.io import camera, video
from selfscan.io.containers import Container, container_of
from selfscan.io.digest import file_digest
from selfscan.io.mux import unheard
from selfscan.io.naming import derived
from selfscan.scan.guide import MAX_BYTES, Advice, Guide, code_words, from_json, guided, now, to_json
from selfscan.types import Array, CodeWords

CAMERA_RATE = 30.0  # frames a second, approximate; the time stamps are exact in any case
CRF = 16  # x264 quality, better than visually lossless (18), since an avatar is made from the clip
SUFFIX = ".words.json"
log = logging.getLogger(__name__)


def run_record(
    source: Path | int,
    out: Path,
    seconds: float = 30.0,
    show: Callable[[np.ndarray, Advice], str] = lambda frame, advice: "",
    sound: render.Sound = render.Sound(),
) -> CodeWords:
    """Record a self-scan from a camera (its number), or from a clip in place of a camera.

    Args:
        out: video, whose ending says its container; the words are written beside it (``words_of``).
        seconds: maximum length; a recording with nothing missing ends earlier.
        show: called with every frame and the advice; returns "stop" to end the recording.
        sound: of a clip in place of a camera: the track to use, and whom to tell what became of it.
    Returns: the shown words and their times.
    Raises: OutputFailed: the clip or its words could not be written; NoCamera: see ``camera.read``;
        UnreadableVideo: see ``video.read``.
    """
    container, clip = stream_container(out, pictures=False), source if isinstance(source, Path) else None
    info = video.probe(clip) if clip else None
    times: list[float] = []

    def told(frame: np.ndarray, advice: Advice) -> str:
        times.append(advice.time)
        return show(frame, advice)

    with (
        closing(Guide(code_words(date.today()), seconds)) as guide,
        product(out, {"video": clip} if clip else {}, {"record": {"seconds": seconds}}, force=True),
    ):
        rescue(out)
        frames = video.read(source) if isinstance(source, Path) else camera.read(source)
        stream = guided(frames, guide, told, seconds)
        rate, heard = info.fps if info else CAMERA_RATE, video.SoundOf(clip, track=sound.track) if clip else None
        write_stream(out, stream, rate, heard, CRF, None, sound.heard, container)
        words = CodeWords(guide.said(math.nextafter(times[-1], math.inf)), now(), file_digest(out))
        try:
            write_bytes(words_of(out), to_json(words))
        except OSError as error:
            raise OutputFailed(
                f"{words_of(out)} could not be written ({error.strerror or error}); the recording is "
                f"complete, but its words are lost: free space and record again"
            ) from error
    return words


def write_stream(
    out_path: str | Path,
    timed: Iterator[tuple[float, Array]],
    rate: float,
    source: video.SoundOf | None,
    crf: int,
    finish: Callable[[Path], None] | None = None,
    heard: Callable[[video.Heard], None] = unheard,
    container: Container | None = None,
) -> None:
    """Write a live stream of times and pictures, all or nothing (``selfscan.io.video.write_stream``).

    Raises:
        OutputFailed: disk full, no permission; an existing target is untouched.
    """
    try:
        video.write_stream(out_path, timed, rate, source, crf, finish, heard, container)
    except OSError as error:
        raise OutputFailed(f"{error.filename}: {error.strerror}") from error


def stream_container(out: str | Path, pictures: bool = True) -> Container:
    """The container that a recording's name asks for.

    Args:
        pictures: whether an animated picture or a folder of pictures will do.
    Raises: UnknownContainer: the name has another ending, or stands for pictures alone.
    """
    container = container_of(out)
    if container.still or container.pictures and not pictures:
        raise UnknownContainer(f"{out}: expected the name of a video such as x.mp4, got that of {container.words}")
    return container


def rescue(out: Path) -> Path | None:
    """Rename the temporary file of a killed recording, before the next recording overwrites it.

    The file lacks at most the last two seconds, and always the sound and the signature, which are added at the end.
    Pictures of an avatar have their watermark. The caller must hold the lock of ``out``.

    Returns: the renamed file; None if there is no playable file.
    """
    part = video.part_of(out)
    try:
        video.probe(part)
    except UnreadableVideo:
        return None
    names = (derived(out, after=f".interrupted{number or ''}.mp4", stem=out.stem) for number in count())
    kept = next(name for name in names if not name.exists())
    part.rename(kept)
    log.warning("an earlier recording was interrupted; its written part is kept as %s", kept)
    return kept


def words_of(clip: Path) -> Path:
    """Path of the file with a recording's words."""
    return derived(clip, after=SUFFIX, stem=clip.stem)


def read_words(clip: Path) -> CodeWords | None:
    """Read the words shown while a clip was recorded; None if there is no such file.

    Raises: ConsentMissing: the file is damaged, or belongs to another recording.
    """
    path = words_of(clip)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return from_json(file.read(MAX_BYTES + 1), file_digest(clip), str(path))
