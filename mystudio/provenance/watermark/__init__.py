"""The invisible watermark: a payload of 48 bits in the pixels, which is read without the original."""

from mystudio.provenance.watermark.detection import Detection, Evidence, detect, detect_parts
from mystudio.provenance.watermark.embedding import embed
from mystudio.provenance.watermark.pattern import WatermarkSettings
from mystudio.provenance.watermark.payload import payload_of

__all__ = ["Detection", "Evidence", "WatermarkSettings", "detect", "detect_parts", "embed", "payload_of"]
