"""Faces in frames: detection, tracking, landmarks, alignment, head pose, mouth and iris patches."""
