"""The perceptual distance: LPIPS, or another named metric if LPIPS's backbone is missing."""
