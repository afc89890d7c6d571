"""Artifacts as folders: manifests, locks, checkpoints, archives and removal."""
