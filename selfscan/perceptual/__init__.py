"""The perceptual distance: LPIPS, or a labelled metric where its backbone is missing."""
