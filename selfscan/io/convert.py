"""Turn pictures that were kept without loss into an animated gif, one picture, or a folder of PNGs."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
from av.error import FFmpegError

from selfscan.io.containers import FOLDER, Container
from selfscan.types import Array

HUNDREDTH = Fraction(1, 100)  # s, the clock of a gif
LEAST_DELAY = 2  # hundredths of a second: viewers show shorter delays ten times longer
COLOURS = "stats_mode=diff"  # the palette serves what moves
DIGITS = 6  # of the number of a picture in a folder


def converted(pictures: Path, path: Path, times: Array, container: Container) -> int:
    """Write what a container of pictures holds; see ``gif``, ``still`` and ``folder``; returns their number."""
    if container == FOLDER:
        return folder(pictures, path)
    return gif(pictures, path, times) if container.format == "gif" else still(pictures, path)


def gif(pictures: Path, path: Path, times: Array) -> int:
    """Write an endless animated gif with one palette.

    Args:
        pictures: clip written by ``mux.encode`` with the codec png.
        path: file to write.
        times: [T] s. Pictures that come faster than 50 a second are left out.
    Returns: number of pictures written.
    """
    shown = _hundredths(times)
    with av.open(f"file:{pictures}") as source, av.open(f"file:{path}", "w", format="gif") as out:
        stream, count = None, 0
        for frame in _with_palette(source, _palette(pictures), shown):
            if stream is None:
                stream = out.add_stream("gif", rate=Fraction(100, 1))
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "pal8"
                stream.codec_context.time_base = HUNDREDTH
            out.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            out.mux(stream.encode(None))
    return count


def still(pictures: Path, path: Path) -> int:
    """Write the first picture as a png, or without loss as a webp, by the ending of ``path``."""
    data = next(_packets(pictures))
    if path.suffix.lower() == ".webp":
        import cv2

        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()  # above 100: without loss
    path.write_bytes(data)
    return 1


def folder(pictures: Path, path: Path) -> int:
    """Write every picture as a PNG, numbered from 1, into a new folder; return their number."""
    path.mkdir()
    count = 0
    for count, data in enumerate(_packets(pictures), start=1):
        (path / f"{count:0{DIGITS}d}.png").write_bytes(data)
    return count


def _packets(pictures: Path) -> Iterator[bytes]:
    with av.open(f"file:{pictures}") as source:
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                yield bytes(packet)


def _hundredths(times: Array) -> list[int | None]:
    """When each picture is shown, in hundredths of a second; None for those that come too fast."""
    shown: list[int | None] = []
    last = -LEAST_DELAY
    for time in np.rint((times - times[0]) * 100).astype(int).tolist():
        shown.append(time if time >= last + LEAST_DELAY else None)
        last = time if shown[-1] is not None else last
    return shown


def _palette(pictures: Path):
    with av.open(f"file:{pictures}") as source:
        stream = source.streams.video[0]
        graph = av.filter.Graph()
        graph.link_nodes(graph.add_buffer(template=stream), graph.add("palettegen", COLOURS), graph.add("buffersink"))
        graph.configure()
        for frame in source.decode(stream):
            graph.push(frame)
        graph.push(None)
        return graph.pull()


def _with_palette(source, palette, shown: list[int | None]) -> Iterator:
    stream = source.streams.video[0]
    graph = av.filter.Graph()
    moving = graph.add_buffer(template=stream, time_base=HUNDREDTH)
    colours = graph.add_buffer(
        width=palette.width, height=palette.height, format=palette.format, time_base=HUNDREDTH, name="palette"
    )
    use = graph.add("paletteuse", "dither=sierra2_4a")
    moving.link_to(use, 0, 0)
    colours.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    palette.pts, palette.time_base = 0, HUNDREDTH
    colours.push(palette)
    colours.push(None)
    for frame, time in zip(source.decode(stream), shown):
        if time is None:
            continue
        frame.pts, frame.time_base = time, HUNDREDTH
        moving.push(frame)
        yield from _pulled(graph)
    moving.push(None)
    yield from _pulled(graph)


def _pulled(graph) -> Iterator:
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError, FFmpegError):
            return
