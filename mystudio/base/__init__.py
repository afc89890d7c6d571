"""Making bases: training of a base's inversion encoder on the base's own samples."""
