"""Motion of the driver's face, and its retargeting to the avatar's proportions."""
