"""Marks of origin on results: signed manifests, the watermark, and their verification."""
