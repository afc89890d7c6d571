"""What the driver's face does, and how it is carried over to the avatar's proportions."""
