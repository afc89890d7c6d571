"""Colour tags of decoded frames: matrix, range, primaries and transfer (ITU-T H.273), and their change to SDR BT.709.

SDR frames with BT.709 primaries take the fast way: one conversion by swscale. Other primaries and HDR transfers are
looked up in a table of colours, which is computed from the standards once for each set of tags:

- PQ and HLG: ITU-R BT.2100-2, HLG with the system gamma 1.2 of a display of 1000 cd/m2;
- white of SDR: 203 cd/m2, ITU-R BT.2408; brighter light is compressed into the last tenth of the range;
- SDR transfers: the display's gamma of 2.4, ITU-R BT.1886; sRGB and gamma 2.2 are shown as they are, as in players;
- primaries: the chromaticities of H.273, table 2, with Bradford's adaptation where the white differs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av.filter
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from selfscan.io import matrices

HD_HEIGHT = 720  # px; as in players, untagged video of at least this height is BT.709, smaller video BT.601
ITU709, ITU601, UNSPECIFIED = 1, 5, 2  # FFmpeg's AVColorSpace / SWS_CS numbers
ITU2020, RGB = 9, 0
LINEAR, LOG100, LOG316, PQ, DCI, HLG = 8, 9, 10, 16, 17, 18  # AVColorTransferCharacteristic
HDR = {PQ: "PQ", HLG: "HLG"}
OTHER_LIGHT = {LINEAR: "linear light", LOG100: "logarithmic", LOG316: "logarithmic", DCI: "DCI gamma 2.6"}
FULL, LIMITED = 2, 1  # AVColorRange
REFERENCE_WHITE = 203.0  # cd/m2
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # cd/m2, and its system gamma
KNEE = 0.9  # of SDR's white, linear: brighter light is compressed
LEVEL = 7  # of the Hald table: 7 x 7 colours along each axis
BACKGROUND = 128  # grey level behind transparent pictures
#: AVColorSpace -> swscale's name; other matrices are unknown to it
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
#: AVColorPrimaries -> name, chromaticities x, y of red, green, blue and white
D65, C, DCI_WHITE, E = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
PRIMARIES: dict[int, tuple[str, tuple[tuple[float, float], ...]]] = {
    1: ("BT.709", ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)),
    4: ("BT.470 M", ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), C)),
    5: ("BT.601 (625 lines)", ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65)),
    6: ("BT.601 (525 lines)", ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65)),
    7: ("SMPTE 240M", ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65)),
    8: ("film", ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), C)),
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65)),
    10: ("CIE XYZ", ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), E)),
    11: ("DCI-P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), DCI_WHITE)),
    12: ("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65)),
    22: ("EBU 3213", ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65)),
}
TOLD = {4, 8, 9, 10, 11, 12}  # primaries so wide that the conversion is told


@dataclass(frozen=True)
class Tags:
    """What a frame's numbers mean, in the numbers of ITU-T H.273 and FFmpeg; missing tags are filled in."""

    matrix: int
    full: bool | None  # range; None = what the pixel format implies
    primaries: int
    transfer: int

    @property
    def plain(self) -> bool:
        """Whether the matrix and the range alone lead to SDR BT.709."""
        return self.primaries == ITU709 and self.transfer not in HDR and self.transfer not in OTHER_LIGHT


def tags_of(frame, context, ipt: bool = False) -> Tags:
    """Read the tags of a frame; what it leaves out comes from its stream, its HDR metadata, or from its height.

    Args:
        frame: a decoded frame. context: the codec context of its stream.
        ipt: whether the clip is Dolby Vision without a compatible base layer (``dolby``), whose tags are wrong.
    """
    if ipt or int(frame.colorspace) == matrices.IPT:
        return Tags(matrices.IPT, ipt or int(frame.color_range) != LIMITED, ITU2020, PQ)
    matrix, span = int(frame.colorspace), int(frame.color_range)
    primaries = _known(getattr(frame, "color_primaries", None), context.color_primaries)
    transfer = _known(getattr(frame, "color_trc", None), context.color_trc)
    if transfer == UNSPECIFIED and primaries in (ITU2020, UNSPECIFIED) and _mastered(frame):
        transfer = PQ  # HDR10 metadata exists for PQ alone
    wide = primaries == ITU2020 or transfer in HDR or matrix in (ITU2020, 10)
    if primaries not in PRIMARIES:
        primaries = ITU2020 if wide else ITU709
    if matrix == UNSPECIFIED or (matrix == RGB and not frame.format.is_rgb):
        matrix = ITU2020 if wide else ITU709 if frame.height >= HD_HEIGHT else ITU601
    return Tags(matrix, {FULL: True, LIMITED: False}.get(span), primaries, transfer)


def _known(value: Any, otherwise: Any) -> int:
    for number in (value, otherwise):
        if number is not None and int(number) not in (0, UNSPECIFIED, 3):  # 0 and 3 are reserved
            return int(number)
    return UNSPECIFIED


def _mastered(frame) -> bool:
    return frame.side_data.get("MASTERING_DISPLAY_METADATA") is not None


def told(tags: Tags) -> list[str]:
    """Return sentences about a conversion that the user should know of."""
    said = []
    name = PRIMARIES[tags.primaries][0]
    if tags.transfer in HDR:
        said.append(f"The clip is HDR ({HDR[tags.transfer]}, {name}); its colours are tone-mapped to SDR BT.709.")
    elif tags.transfer in OTHER_LIGHT or tags.primaries in TOLD:
        light = f"{OTHER_LIGHT[tags.transfer]}, " if tags.transfer in OTHER_LIGHT else ""
        said.append(f"The clip has wide or unusual colours ({light}{name}); they are converted to SDR BT.709.")
    if tags.matrix == matrices.IPT:
        said.append(
            "The clip is Dolby Vision (IPT-PQ-C2) without an HDR10 layer; its dynamic metadata are not applied, so its "
            "colours are approximate. Export it as SDR if they look wrong."
        )
    elif tags.matrix in matrices.NAMES:
        said.append(f"The clip's colour matrix ({matrices.NAMES[tags.matrix]}) is converted to RGB.")
    elif tags.matrix not in MATRICES and tags.matrix != RGB:
        said.append(f"The clip's colour matrix (number {tags.matrix} of ITU-T H.273) is read as BT.709.")
    return said


class Converter:
    """Converts decoded frames to 8-bit RGB in SDR BT.709; keeps what equal frames need again."""

    def __init__(self):
        self._reformatter, self._graphs = VideoReformatter(), {}

    def __call__(self, frame, tags: Tags, width: int, height: int):
        """Convert one frame.

        Args:
            frame: the decoded frame. tags: of ``tags_of``. width, height: px of the result.
        Returns: a frame in the format rgb24.
        Raises: FFmpegError, ValueError: it cannot be converted.
        """
        if any(part.is_alpha for part in frame.format.components):
            return self._opaque(frame, tags, width, height)
        if tags.matrix in matrices.NAMES and not frame.format.is_rgb:
            frame, tags = self._computed(frame, tags, width, height), replace(tags, matrix=RGB, full=True)
        if tags.plain:
            span = None if tags.full is None else (FULL if tags.full else LIMITED)
            matrix = tags.matrix if tags.matrix in MATRICES or tags.matrix == RGB else ITU709
            return self._reformatter.reformat(
                frame, width, height, "rgb24", src_colorspace=matrix, src_color_range=span
            )
        return self._looked_up(frame, tags, width, height)

    def _looked_up(self, frame, tags: Tags, width: int, height: int):
        key = (frame.format.name, frame.width, frame.height, width, height, tags)
        if key not in self._graphs:
            self._graphs = {key: _Table(*key)}  # only the newest: properties seldom change
        return self._graphs[key](frame)

    def _computed(self, frame, tags: Tags, width: int, height: int):
        """R'G'B' of a matrix that swscale does not know, with 8 or 16 bits; limited range if untagged."""
        import numpy as np

        span = FULL if tags.full else LIMITED
        scaled = self._reformatter.reformat(
            frame,
            width,
            height,
            matrices.STORED,
            src_colorspace=ITU709,
            dst_colorspace=ITU709,
            src_color_range=span,
            dst_color_range=span,
        )
        planes = matrices.unpacked(np.moveaxis(scaled.to_ndarray(), -1, 0), span == FULL)
        colours = matrices.rgb(planes, tags.matrix, _xyz(tags.primaries)[1], tags.transfer)
        if tags.plain:
            made = av.VideoFrame.from_ndarray((colours * 255).round().astype(np.uint8), format="rgb24")
        else:
            made = av.VideoFrame.from_ndarray((colours * 65535).round().astype(np.uint16), format="rgb48le")
        made.pts, made.time_base = frame.pts, frame.time_base
        return made

    def _opaque(self, frame, tags: Tags, width: int, height: int):
        """Show a transparent frame over grey."""
        import numpy as np

        rgba = self._reformatter.reformat(frame, width, height, "rgba", src_colorspace=_matrix(tags)).to_ndarray()
        alpha = rgba[..., 3:].astype(np.uint16)
        shown = rgba[..., :3]
        if alpha.min() < 255:
            shown = (shown * alpha + BACKGROUND * (255 - alpha) + 127) // 255
        opaque = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown, np.uint8), format="rgb24")
        if tags.plain:
            return opaque
        return self._looked_up(opaque, replace(tags, matrix=RGB, full=True), width, height)


def _matrix(tags: Tags) -> int:
    return tags.matrix if tags.matrix in MATRICES or tags.matrix == RGB else ITU709


class _Table:
    """A filter graph that scales frames, makes RGB of them, and looks their colours up in a Hald table."""

    def __init__(self, name: str, width: int, height: int, wide: int, high: int, tags: Tags):
        side = LEVEL**3
        self._graph, self._count = av.filter.Graph(), 0
        add = self._graph.add
        self._source = add("buffer", f"video_size={width}x{height}:pix_fmt={name}:time_base=1/1000")
        table = add("buffer", f"video_size={side}x{side}:pix_fmt=gbrpf32le:time_base=1/1000")
        matrix = "" if tags.matrix == RGB else f":in_color_matrix={MATRICES.get(tags.matrix, 'bt709')}"
        span = "" if tags.full is None else f":in_range={'full' if tags.full else 'limited'}"
        scale = add("scale", f"{wide}:{high}:out_range=full{matrix}{span}")
        floats, lookup, form = add("format", "gbrpf32le"), add("haldclut", "clut=first"), add("format", "rgb24")
        self._sink = add("buffersink")
        for one, other in ((self._source, scale), (scale, floats), (lookup, form), (form, self._sink)):
            one.link_to(other)
        floats.link_to(lookup, 0, 0)
        table.link_to(lookup, 0, 1)
        self._graph.configure()
        table.push(_hald(tags.primaries, tags.transfer))
        table.push(None)

    def __call__(self, frame):
        stamps = frame.pts, frame.time_base
        frame.pts, frame.time_base = self._count, Fraction(1, 1000)  # the filter pairs both inputs by time
        self._count += 1
        try:
            self._source.push(frame)
            return self._sink.pull()
        except (BlockingIOError, EOFError) as error:
            raise FFmpegError(0, "no picture came from the table of colours") from error
        finally:
            frame.pts, frame.time_base = stamps[0], stamps[1] or frame.time_base


def _hald(primaries: int, transfer: int):
    """The table of colours as a picture: red changes fastest, then green, then blue."""
    import numpy as np

    count = LEVEL * LEVEL
    steps = np.linspace(0, 1, count)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    colours = sdr(np.stack([red, green, blue], -1), primaries, transfer).reshape(LEVEL**3, LEVEL**3, 3)
    picture = av.VideoFrame.from_ndarray((colours * 65535).round().astype(np.uint16), format="rgb48le")
    picture = picture.reformat(format="gbrpf32le")
    picture.pts, picture.time_base = 0, Fraction(1, 1000)
    return picture


def sdr(signal, primaries: int, transfer: int):
    """Convert R'G'B' signals to SDR BT.709.

    Args:
        signal: [..., 3] in 0..1. primaries, transfer: numbers of ITU-T H.273.
    Returns: [..., 3] float64 in 0..1.
    """
    import numpy as np

    light = np.maximum(_light(np.asarray(signal, np.float64), transfer, primaries) @ _to_709(primaries).T, 0)
    if transfer in HDR:
        peak = light.max(-1, keepdims=True)
        over = KNEE + (1 - KNEE) * (1 - np.exp(-(peak - KNEE) / (1 - KNEE)))
        light = light * np.where(peak > KNEE, over / np.maximum(peak, KNEE), 1)
    return np.clip(light, 0, 1) ** (1 / 2.4)


def _light(signal, transfer: int, primaries: int):
    """Displayed linear light of a signal; 1 is the white of SDR."""
    import numpy as np

    if transfer == PQ:  # BT.2100-2, table 4
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        return 10_000 / REFERENCE_WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    if transfer == HLG:  # BT.2100-2, table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        luma = scene @ _xyz(primaries)[1]
        return HLG_PEAK / REFERENCE_WHITE * scene * np.maximum(luma, 1e-12)[..., None] ** (HLG_GAMMA - 1)
    if transfer == LINEAR:
        return signal
    if transfer in (LOG100, LOG316):
        decades = 2 if transfer == LOG100 else 2.5
        return np.where(signal > 0, 10 ** (decades * (signal - 1)), 0)
    if transfer == DCI:  # SMPTE ST 428-1
        return 52.37 / 48 * signal**2.6
    return signal**2.4


def _xyz(primaries: int):
    """Matrix [3, 3] from linear RGB to CIE XYZ; its second row is the luminance."""
    import numpy as np

    *corners, white = [(x / y, 1.0, (1 - x - y) / y) if y else (x, 0.0, 1 - x) for x, y in PRIMARIES[primaries][1]]
    columns = np.array(corners).T
    return columns * np.linalg.solve(columns, np.array(white))


def _to_709(primaries: int):
    """Matrix [3, 3] from linear RGB of some primaries to BT.709."""
    import numpy as np

    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    source, target = _xyz(primaries), _xyz(ITU709)
    cones = (bradford @ target.sum(1)) / (bradford @ source.sum(1))
    adapted = np.linalg.inv(bradford) @ np.diag(cones) @ bradford
    return np.linalg.inv(target) @ adapted @ source
