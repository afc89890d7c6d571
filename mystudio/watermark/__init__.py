"""The invisible watermark: a payload of 48 bits in the pixels, found again without the original."""

from mystudio.watermark.detection import Detection, Evidence, detect, detect_parts
from mystudio.watermark.embedding import embed
from mystudio.watermark.pattern import WatermarkSettings
from mystudio.watermark.payload import payload_of

__all__ = ["Detection", "Evidence", "WatermarkSettings", "detect", "detect_parts", "embed", "payload_of"]
