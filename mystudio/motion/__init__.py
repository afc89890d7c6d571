"""The driver's motion, and its retargeting to the avatar's proportions."""
