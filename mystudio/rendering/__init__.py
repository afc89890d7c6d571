"""Takes as clips: drawing and blending."""
