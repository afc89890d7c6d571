"""Pictures whose file tags HDR or wide colours (AVIF, PNG): Pillow ignores the tags, so FFmpeg decodes them.

They become SDR BT.709 in the same way as clips (``colour``). Runs in the decoding child.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from selfscan.errors import UnreadableVideo
from selfscan.io.colour import HDR, ITU709, OTHER_LIGHT, UNSPECIFIED, Converter, tags_of, told
from selfscan.io.opening import opened

HEAD = 1 << 16  # bytes in which the tags lie
AVIF, PNG = b"colrnclx", b"cICP"  # what the numbers of ITU-T H.273 follow, and their bytes each


def has_tags(path: str | Path) -> bool:
    """Whether a picture tags a transfer or primaries that are not those of SDR BT.709 or sRGB."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    mark, size = (PNG, 1) if head.startswith(b"\x89PNG") else (AVIF, 2)
    at = head.find(mark) + len(mark)
    if at < len(mark) or at + 2 * size > len(head):
        return False
    primaries, transfer = (int.from_bytes(head[at + k * size : at + (k + 1) * size], "big") for k in (0, 1))
    if transfer in HDR or transfer in OTHER_LIGHT:
        return True
    return primaries not in (0, UNSPECIFIED, ITU709) and b"colrprof" not in head and b"iCCP" not in head


def converted(path: str | Path, image, tell: Callable[[str], None]):
    """Decode a picture with such tags to SDR BT.709; any other picture, and one that FFmpeg cannot decode, stays.

    Args:
        path: the picture. image: as Pillow opened it.
        tell: called with sentences about the conversion.
    Returns: an image of Pillow with the orientation of ``image``.
    """
    from PIL import Image

    if image.format not in ("AVIF", "PNG") or not has_tags(path):
        return image
    try:
        with opened(path) as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            tags = tags_of(frame, stream.codec_context)
            picture: Any = Converter()(frame, tags, frame.width, frame.height)
            shown = picture.to_ndarray()
    except (FFmpegError, UnreadableVideo, ValueError, LookupError, StopIteration):
        shown, tags = None, None
    if shown is None or tags is None or shown.shape[1::-1] != image.size:  # such as one tile of a grid
        tell("The picture has HDR or wide colours that cannot be converted; its colours may be pale.")
        return image
    for text in told(tags):
        tell(text.replace("The clip", "The picture"))
    made = Image.fromarray(shown)
    made.info["exif"] = image.info.get("exif", b"")
    return made
