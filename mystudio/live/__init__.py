"""Live driving: an avatar follows a camera."""
