"""Pictures as a clip: an animated or still picture, or a folder of them. Runs in the decoding child.

Pillow decodes PNG, JPEG, WebP, AVIF, TIFF and BMP, with the orientation of EXIF and with colour profiles. A folder of
pictures with consecutive numbers is a clip. Any other folder holds photos, in any order and of any sizes: one a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfscan.errors import UnreadableVideo, VideoTooLarge
from selfscan.io import gif, hdr_pictures
from selfscan.io.opening import RAW_SUFFIXES, Limits, in_words, refuse_unread

SUFFIXES = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp"}
UNKNOWN = {".heic", ".heif", ".jxl"} | RAW_SUFFIXES  # pictures that are not read
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP")  # Pillow opens multi-picture JPEG by JPEG
MAX_PIXELS = 1 << 26  # of a stored picture; it is shown with at most ``CANVAS`` px a side
CANVAS = 2560  # px, longest side of a shown photo
BACKGROUND = 128  # grey level behind transparent pictures
RATE = 25.0  # frames a second of a numbered folder
SHORTEST, INSTEAD = 0.011, 0.1  # s; as in browsers, a frame shown for less than the first is shown for the second
TAKEN = 0x9003  # EXIF: the time at which a photo was taken
EXIF_IFD = 0x8769

Tell = Callable[[str], None]
UPRIGHT = (False, False, False)


def is_picture(path: str | Path) -> bool:
    """Whether a path is a folder, or a file that Pillow reads rather than FFmpeg: by its first bytes, not its name."""
    if Path(path).is_dir():
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError:
        return False
    if head[4:8] == b"ftyp":
        if head[8:12] == b"avis":  # Pillow ignores its HDR tags
            return not hdr_pictures.has_tags(path)
        return head[8:12] == b"avif" or head[8:12] == b"mif1" and b"avif" in head
    jpeg = head[:3] == b"\xff\xd8\xff" and Path(path).suffix.lower() not in (".mjpeg", ".mjpg")
    tiff = head[:4] in (b"II*\0", b"MM\0*")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    bmp = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head[:8] == b"\x89PNG\r\n\x1a\n" or jpeg or tiff or webp or bmp


@contextmanager
def opened(path: str, limits: Limits, tell: Tell) -> Iterator[tuple[dict[str, Any], Iterator]]:
    """Open a picture or a folder of pictures.

    Args:
        path: a picture, animated or not, or a folder.
        tell: called with sentences about what is left out or assumed.
    Returns: the facts of ``VideoInfo``, and the pictures: time, s, frame of format rgb24, and how to turn it.
    Raises: UnreadableVideo, VideoTooLarge.
    """
    if Path(path).is_dir():
        yield _folder(Path(path), limits, tell)
        return
    refuse_unread(Path(path))
    with _open(path) as image:
        count = getattr(image, "n_frames", 1) if image.format not in ("MPO", "TIFF") else 1
        if count == 1:
            tell("The clip is a single picture: it holds one pose and no motion.")
            image = hdr_pictures.converted(path, image, tell)
            yield _facts(RATE, 1, 1 / RATE), iter([(0.0, *_shown(image, _size(image, limits), None))])
            return
        if count > limits.frames:
            raise VideoTooLarge(f"{path}: {count} frames are more than {in_words(limits)}; cut it")
        times, seconds = _times(image, count, tell)
        first = len(times) and count - len(times)
        yield _facts(len(times) / seconds, len(times), seconds), _animated(image, times, first, limits)


def _facts(fps: float, count: int, seconds: float, stills: bool = False) -> dict[str, Any]:
    return {"fps": fps, "frames_estimate": count, "duration": seconds, "has_audio": False, "stills": stills}


def _open(path: str | Path):
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # the check below counts the pixels of every picture
    try:
        image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(
            f"{path}: expected a video or a picture, but it cannot be read ({_words(error)}); export it again, "
            "pictures as JPEG or PNG"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise VideoTooLarge(f"{path}: {image.width}x{image.height} px are more than {MAX_PIXELS} px; make it smaller")
    return image


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _times(image, count: int, tell: Tell) -> tuple[list[float], float]:
    """Times of the frames of an animation, s, and its length, s; a default picture that is no frame has no time."""
    times, now, short = [], 0.0, 0
    for index in range(1 if image.info.get("default_image") else 0, count):
        image.seek(index)
        image.load()
        length = float(image.info.get("duration") or 0) / 1000
        times.append(now)
        short += length < SHORTEST
        now += length if length >= SHORTEST else INSTEAD
    image.seek(0)
    if short:
        tell(gif.told(short, len(times)))
    return times, now


def _animated(image, times: list[float], first: int, limits: Limits) -> Iterator:
    size = _size(image, limits)
    for index, time in enumerate(times):
        try:
            image.seek(first + index)
            yield time, *_shown(image, size, None)
        except (OSError, ValueError, SyntaxError, EOFError):  # a damaged tail ends the clip
            return


def _upright_size(image) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def _size(image, limits: Limits) -> tuple[int, int]:
    """Size at which a picture is shown, px: its own, or less where that exceeds the limits."""
    width, height = _upright_size(image)
    share = min(1.0, (limits.pixels / (width * height)) ** 0.5)
    return max(1, int(width * share)), max(1, int(height * share))


def _shown(image, size: tuple[int, int], canvas: tuple[int, int] | None):
    """Decode a picture: upright, in sRGB, over grey, scaled to ``size``, in the middle of ``canvas``.

    Its edges are repeated up to the rim of the canvas, as in aligned crops: black would show beside a face.
    """
    import av
    import numpy as np
    from PIL import Image, ImageOps

    image.draft("RGB", size)  # a large JPEG is decoded at a smaller scale
    picture = ImageOps.exif_transpose(image)
    picture = _srgb(picture if picture is not None else image)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    if canvas is not None and canvas != size:
        left, top = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
        rim = (top, canvas[1] - size[1] - top), (left, canvas[0] - size[0] - left), (0, 0)
        pixels = np.pad(pixels, rim, mode="edge")
    return av.VideoFrame.from_ndarray(pixels, format="rgb24"), UPRIGHT


def _srgb(picture):
    """A picture as RGB in sRGB, without transparency."""
    from io import BytesIO

    import numpy as np
    from PIL import Image, ImageCms

    if picture.mode.startswith("I") or picture.mode == "F":  # 16 or 32 bits a grey level
        grey = np.asarray(picture, np.float64)
        grey = grey / 257 if grey.max(initial=0) > 255 else grey
        picture = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    profile = picture.info.get("icc_profile")
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    colours = picture.convert("RGB") if picture.mode not in ("RGB", "CMYK") else picture
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            made = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            colours = made if made is not None else colours
        except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile, or one of another mode
            pass
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, (BACKGROUND,) * 3), alpha)


def _folder(folder: Path, limits: Limits, tell: Tell) -> tuple[dict[str, Any], Iterator]:
    found = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural)
    files = [path for path in found if path.suffix.lower() in SUFFIXES]
    unknown = [path for path in found if path.suffix.lower() in UNKNOWN]
    if unknown:
        tell(f"{_pictures(len(unknown))} ({unknown[0].name}, ...) are left out: export them as JPEG or PNG.")
    if not files:
        raise UnreadableVideo(
            f"{folder}: expected a video or a folder of pictures, but the folder holds no JPEG, PNG, WebP or AVIF; "
            "name the video itself"
        )
    if len(files) > limits.frames:
        raise VideoTooLarge(f"{folder}: {len(files)} pictures are more than {in_words(limits)}; use fewer")
    sizes, dated = _measured(files, tell)
    files = list(sizes)
    if not files:
        raise UnreadableVideo(f"{folder}: none of its pictures can be read; export them again as JPEG or PNG")
    if _numbered(files) and len(set(sizes.values())) == 1 and not dated:
        tell(f"The folder's pictures are numbered: they are a clip of {RATE:g} frames a second.")
        size = next(iter(sizes.values()))
        return _facts(RATE, len(files), len(files) / RATE), _photos(files, {}, size, 1 / RATE, limits, tell)
    tell(f"The folder holds {_pictures(len(files))}, which are taken as photos of one person, without motion.")
    if len(files) > limits.seconds:
        raise VideoTooLarge(f"{folder}: {len(files)} photos are more than {limits.seconds:.0f}; use fewer")
    canvas = tuple(min(max(size[k] for size in sizes.values()), CANVAS) for k in (0, 1))
    return _facts(1.0, len(files), float(len(files)), stills=True), _photos(files, sizes, canvas, 1.0, limits, tell)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _measured(files: list[Path], tell: Tell) -> tuple[dict[Path, tuple[int, int]], bool]:
    """Sizes of the readable pictures, px, and whether one of them says when it was taken."""
    sizes, dated = {}, False
    for path in files:
        try:
            with _open(path) as image:
                sizes[path] = _upright_size(image)
                dated = dated or TAKEN in image.getexif().get_ifd(EXIF_IFD)
        except (UnreadableVideo, VideoTooLarge, OSError, ValueError, SyntaxError):
            tell(f"The picture {path.name} cannot be read and is left out.")
    return sizes, dated


def _photos(files, sizes: dict[Path, tuple[int, int]], canvas, step: float, limits: Limits, tell: Tell) -> Iterator:
    """The pictures of a folder, each as large as the canvas allows; without sizes, all have that of the canvas."""
    share = min(1.0, (limits.pixels / (canvas[0] * canvas[1])) ** 0.5)
    canvas = (max(1, int(canvas[0] * share)), max(1, int(canvas[1] * share)))
    count = 0
    for path in files:
        width, height = sizes.get(path, canvas)
        share = min(canvas[0] / width, canvas[1] / height)
        try:
            with _open(path) as opened_image:
                image = hdr_pictures.converted(path, opened_image, tell)
                shown = _shown(image, (max(1, round(width * share)), max(1, round(height * share))), canvas)
        except (UnreadableVideo, VideoTooLarge, OSError, ValueError, SyntaxError):
            tell(f"The picture {path.name} cannot be read and is left out.")
            continue
        yield count * step, *shown
        count += 1


def _natural(path: Path) -> list:
    """Key that sorts numbers in names by value: 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name.lower())]


def _numbered(files: list[Path]) -> bool:
    """Whether the names differ in one number alone, which rises by one."""
    parts = [re.fullmatch(r"(\D*(?:\d+\D+)*?)(\d+)(\D*)", path.name.lower()) for path in files]
    found = [part.groups() for part in parts if part]
    if len(found) != len(files) or len(files) < 2:
        return False
    numbers = [int(number) for _, number, _ in found]
    one = len({(before, after) for before, _, after in found}) == 1
    return one and all(after - before == 1 for before, after in zip(numbers, numbers[1:]))
