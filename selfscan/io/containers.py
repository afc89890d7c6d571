"""What the ending of an output's name stands for: the container, its codecs, and the sound that it holds."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from selfscan.errors import UnknownContainer


@dataclass(frozen=True)
class Container:
    """One kind of output."""

    words: str  # with its article, for messages
    format: str  # FFmpeg's muxer; "" for pictures that are not muxed
    codec: str = "libx264"  # encoder of the pictures; png: kept without loss until they are converted
    copied: tuple[str, ...] | None = None  # codecs of sound copied unchanged; None = all that the muxer takes
    sound: str = "aac"  # encoder of other sound; "" if it holds none
    options: tuple[tuple[str, str], ...] = ()  # of the muxer
    mime: str = ""  # type under which a C2PA manifest is embedded; "" if it can hold none
    still: bool = False  # whether it holds one picture alone

    @property
    def pictures(self) -> bool:
        """Whether the result is made of pictures: an animated picture, one picture, or a folder of them."""
        return self.codec == "png"


_FRONT = (("movflags", "faststart"),)  # the index in front
_MP4 = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
_MOV = ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be", "pcm_f32le")
MP4 = Container("an mp4", "mp4", copied=_MP4, options=_FRONT, mime="video/mp4")
FOLDER = Container("a folder of PNGs", "", "png", sound="", mime="image/png")
ENDINGS = {
    ".mp4": MP4,
    ".m4v": MP4,
    ".mov": Container("a mov", "mov", copied=_MOV, options=_FRONT, mime="video/quicktime"),
    ".mkv": Container("an mkv", "matroska"),
    ".webm": Container("a webm", "webm", "libvpx-vp9", ("opus", "vorbis"), "libopus"),
    ".gif": Container("a gif", "gif", "png", sound="", mime="image/gif"),
    ".png": Container("a png", "", "png", sound="", mime="image/png", still=True),
    ".webp": Container("a webp", "", "png", sound="", mime="image/webp", still=True),
}
STILLS = (".png", ".webp")
PATTERN = re.compile(r"%0?[0-9]*d")  # numbered pictures, as other programs name them


def container_of(path: str | Path) -> Container:
    """The container that the name of an output asks for.

    Args:
        path: the output; a name that ends in a slash, or an existing folder, is a folder of PNGs.
    Raises: UnknownContainer: the name has no ending, or one that is not offered.
    """
    if is_folder(path):
        return FOLDER
    name = Path(path).name
    ending = os.path.splitext(name)[1].lower()
    pattern = ending in STILLS and PATTERN.search(name)
    if ending in ENDINGS and not pattern:
        return ENDINGS[ending]
    got = "a pattern of numbers" if pattern else f"the ending {ending}" if ending else "no ending"
    stem = PATTERN.sub("", Path(name).stem).strip("-_. ") or "clip"
    example = f"{stem}/" if pattern else f"{stem}.mp4"
    raise UnknownContainer(
        f"{path}: expected a name that ends in {', '.join(ENDINGS)}, or in a slash for a folder of PNGs, got {got}; "
        f"choose one of these, such as {example}"
    )


def is_folder(path: str | Path) -> bool:
    """Whether the name of an output stands for a folder of PNGs."""
    return str(path).endswith(("/", os.sep)) or os.path.isdir(path)
