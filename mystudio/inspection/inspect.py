"""Find out what a path is, and describe it."""

from __future__ import annotations

from pathlib import Path

from mystudio.base.checkpoint import is_begun
from mystudio.errors import BadArtifact
from mystudio.inspection import artifacts, clips, files
from mystudio.inspection.description import Description
from mystudio.storage.journal import key_of
from mystudio.storage.manifest import MANIFEST
from mystudio.types import Progress, silent


def inspect(path: Path, progress: Progress = silent) -> Description:
    """Describe a clip, a picture, a folder, an artifact, an archive, weights, or a text file that mystudio reads.

    Args:
        progress: called while the frames of a clip are read.
    Raises: StudioError, SelfscanError: the path does not exist, is damaged, or is nothing that mystudio reads.
    """
    if not path.exists():
        raise BadArtifact(f"{path} does not exist; correct the path")
    if path.is_dir():
        return _folder(path, progress)
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\3\4") and MANIFEST.encode() in head:
        return artifacts.describe_archive(path)
    if path.suffix.lower() in files.WEIGHTS or head.startswith((b"\x93NUMPY", b"PK\3\4")):
        return files.describe_weights(path)
    return files.describe_text(path) or clips.describe_clip(path, progress)


def _folder(path: Path, progress: Progress) -> Description:
    if (path / MANIFEST).exists():
        return artifacts.describe_artifact(path)
    if key_of(path) is not None:
        return artifacts.describe_unfinished(path)
    if is_begun(path):
        return files.describe_training(path)
    if clips.is_clip_folder(path):
        return clips.describe_clip(path, progress)
    inside = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    raise BadArtifact(
        f"{path}: expected an artifact, a folder of pictures or a training run, found "
        f"{', '.join(inside[:4]) or 'nothing'}; give one of the files inside"
    )
