"""Decode VP8 and VP9 with transparency: FFmpeg's own decoders drop it, those of libvpx keep it."""

from __future__ import annotations

from typing import Any

import av
from av.codec.codec import UnknownCodecError

DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class Decoder:
    """Decodes packets of pictures, with their transparency where their stream has any."""

    def __init__(self):
        self._contexts = dict[int, Any]()  # of each stream; None = its own

    def __call__(self, packet) -> list[Any]:
        """The frames of a packet. Raises: FFmpegError."""
        key = id(packet.stream)
        if key not in self._contexts:
            self._contexts = {key: _context(packet.stream)}  # the streams of joined files come one after the other
        context = self._contexts[key]
        return packet.decode() if context is None else context.decode(packet)


def _context(stream) -> Any:
    own = stream.codec_context
    name = DECODERS.get(own.codec.canonical_name)
    alpha = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode", "0")
    if name is None or alpha == "0":
        return None
    try:
        context = av.CodecContext.create(name, "r")
    except UnknownCodecError:  # a build without libvpx
        return None
    context.options, context.thread_type = own.options, "AUTO"
    return context
