"""Checks of the installation, with advice for everything that is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Literal

from mystudio.errors import StudioError, reason
from selfscan.errors import SelfscanError

FREE_GIB = 2.0  # space for an avatar of 1024 px with its journal
TIMEOUT = 30.0  # s without an answer, after which a download fails
BACKBONES = "https://download.pytorch.org/models/"
DETECTOR = "modules/face_detection/face_detection_full_range_sparse.tflite"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    needed: bool  # False: optional
    found: str
    advice: str = ""  # what to do if it is not ok


def examine(folder: Path = Path(".")) -> list[Finding]:
    """Check everything that the studio needs; nothing is changed or downloaded.

    Args:
        folder: folder for artifacts, whose free space is checked.
    """
    return [
        *_python(),
        *_torch(),
        *_cv2(),
        *_landmarks(),
        *_recognition(),
        *_perceptual(),
        *_bases(),
        *_actors(),
        *_codecs(),
        *_marks(),
        *_disk(folder),
    ]


def fetch() -> Path:
    """Download LPIPS's backbone (torchvision's SqueezeNet, 5 MB) into torch hub's cache, and compare its checksum.

    Returns: the file; one that is there already is kept.
    Raises: StudioError: no connection, or another file came.
    """
    import torch

    from selfscan.perceptual.lpips_layers import HUB_FILES, hub_folder

    path = hub_folder() / HUB_FILES["squeeze"]
    if path.is_file():
        return path
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.partition("-")[2]  # torchvision's names end with the first digits of the SHA-256
        torch.hub.download_url_to_file(BACKBONES + path.name, str(path), digest, progress=False)
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise StudioError(
            f"{path.name} could not be downloaded ({reason(error)}); try again, or copy it to {path.parent} yourself"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return path


def no_gpu() -> str:
    """What to do where torch finds no GPU; nothing where it finds one."""
    import torch

    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return "this torch is built for the CPU alone: install one with CUDA (pytorch.org), or go on with the CPU"
    return (
        f"torch is built for CUDA {torch.version.cuda}: see whether `nvidia-smi` names a GPU and update its driver, "
        "or go on with the CPU"
    )


def _python() -> Iterator[Finding]:
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "python",
        good,
        True,
        f"{platform.python_version()} on {platform.machine()}",
        "" if good else "use Python 3.10, 3.11 or 3.12: mediapipe has no wheel with networks for others",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", False, True, f"cannot be imported ({error})", "pip install 'torch>=2.10'")
        return
    yield Finding("torch", True, True, f"{torch.__version__}, {torch.get_num_threads()} thread(s)")
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if gpu else "CPU"
    yield Finding("device", gpu, False, name, "" if gpu else "all commands run on the CPU; a CUDA GPU is much faster")


def _cv2() -> Iterator[Finding]:
    found = {}
    for name in ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    import cv2

    text = ", ".join(f"{name} {number}" for name, number in found.items())
    agree = len(set(found.values())) == 1
    advice = "two packages own the module cv2 and must agree: pip install " + " ".join(
        f"{name}=={version('opencv-contrib-python') if 'opencv-contrib-python' in found else cv2.__version__}"
        for name in found
    )
    yield Finding("cv2", agree, True, f"{cv2.__version__} of {text}", "" if agree else advice)


def _landmarks() -> Iterator[Finding]:
    advice = "pip install 'mediapipe>=0.10.14,<0.10.22': later wheels carry no networks"
    try:
        from selfscan.face.facemesh import model_path

        mesh = model_path()
        yield Finding("landmark network", True, True, f"{mesh.name} of mediapipe {version('mediapipe')}")
    except (SelfscanError, PackageNotFoundError) as error:
        yield Finding("landmark network", False, True, str(error), advice)
        return
    there = Path(str(distribution("mediapipe").locate_file(f"mediapipe/{DETECTOR}"))).is_file()
    yield Finding(
        "face detector", there, True, Path(DETECTOR).name if there else "not in the wheel", "" if there else advice
    )


def _recognition() -> Iterator[Finding]:
    from selfscan.face.recognition import PACKAGES, find_weights

    path = find_weights()
    advice = f"pip install {PACKAGES}: a scan checks with it that it shows one person, and reports measure likeness"
    yield Finding("face recognition", path is not None, True, path.name if path else "none", "" if path else advice)


def _perceptual() -> Iterator[Finding]:
    from selfscan.perceptual.lpips_layers import BACKBONE_VARIABLE, HUB_FILES, find_backbone, hub_folder

    advice = (
        f"optional: `mystudio doctor --fetch` downloads LPIPS's own backbone, or put {HUB_FILES['squeeze']} "
        f"(torchvision's SqueezeNet) into {hub_folder()}, or name its file in {BACKBONE_VARIABLE}"
    )
    if importlib.util.find_spec("lpips") is None:
        yield Finding("perceptual metric", False, True, "no package lpips", "pip install lpips")
        return
    try:
        kinds = [kind for kind in HUB_FILES if find_backbone(kind, None)]
    except SelfscanError as error:
        yield Finding("perceptual metric", False, True, str(error), f"correct or unset {BACKBONE_VARIABLE}")
        return
    found = f"LPIPS with {', '.join(kinds)}" if kinds else "lpips-face: LPIPS distilled on faces, of this package"
    yield Finding("perceptual metric", True, False, found, "" if kinds else advice)


def _bases() -> Iterator[Finding]:
    from mystudio import engines
    from mystudio.bases import list_bases

    bases = list_bases()
    if not bases:
        yield Finding("base", False, True, "none", "`mystudio base import FILE` makes one of a StyleGAN2 checkpoint")
    for base in bases:
        try:
            facts = f"{base.info['resolution']} px, {base.path}"
        except StudioError as error:
            yield Finding(f"base {base.name}", False, True, str(error), f"replace or remove {base.path}")
            continue
        missed = {kind: loss for kind, loss in engines.companions().items() if base.companion(kind) is None}
        there = [kind for kind in engines.companions() if kind not in missed]
        words = [*(f"with {kind}" for kind in there), *(f"without {kind}" for kind in missed)]
        yield Finding(f"base {base.name}", not missed, False, ", ".join([facts, *words]), "; ".join(missed.values()))


def _actors() -> Iterator[Finding]:
    from mystudio.actors.basis import COMMAND, basis_path

    if importlib.util.find_spec("numba") is None:
        yield Finding("actors", False, False, "no package numba", "pip install 'mystudio[actors]' to draw actors")
        return
    try:
        path = basis_path()
    except StudioError as error:
        yield Finding("actors", False, False, str(error), "set MYSTUDIO_HOME to a folder")
        return
    there = path.is_file()
    yield Finding(
        "actors",
        there,
        False,
        f"3D head {path}" if there else "no 3D head",
        "" if there else f"`{COMMAND}` keeps one; only synthetic people need it",
    )


def _codecs() -> Iterator[Finding]:
    import av

    missing = []
    wanted: tuple[tuple[str, Literal["r", "w"]], ...] = (("h264", "r"), ("hevc", "r"), ("libx264", "w"))
    for name, mode in wanted:
        try:
            av.Codec(name, mode)
        except Exception:  # PyAV's own errors differ between versions
            missing.append(name)
    found = f"PyAV {av.__version__}" + (f" without {', '.join(missing)}" if missing else "")
    yield Finding("video codecs", not missing, True, found, "pip install --force-reinstall av" if missing else "")


def _marks() -> Iterator[Finding]:
    from mystudio.provenance.signing import key_file

    try:
        import c2pa
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("provenance", False, True, f"c2pa cannot be used ({error})", "pip install 'c2pa-python>=0.38'")
        return
    file = key_file()
    if file is None:
        yield Finding(
            "provenance",
            False,
            False,
            f"c2pa {c2pa.sdk_version()}, no home to keep a signing key in",
            "set MYSTUDIO_HOME to a folder; without it every result is signed with a key of its own",
        )
        return
    kept = f"signing key {file}" if file.exists() else f"the first render makes a signing key, {file}"
    yield Finding("provenance", True, True, f"c2pa {c2pa.sdk_version()}, {kept}")


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free / 2**30
    good = free >= FREE_GIB
    yield Finding(
        "free space",
        good,
        False,
        f"{free:.1f} GiB in {folder.resolve()}",
        "" if good else f"keep {FREE_GIB:.0f} GiB free for avatars and their journals",
    )
