"""An avatar that follows a camera."""
