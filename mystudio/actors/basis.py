"""The morphable 3D head of all actors. The user imports it once; it is not part of the package."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mystudio import bases
from mystudio.errors import BadArtifact, reason
from mystudio.storage import npz
from selfscan.io.naming import derived

COMMAND = "mystudio actors import-basis FOLDER_OR_NPZ"
#: names and order of the expression weights: ARKit's, with brows and cheeks by side
EXPRESSIONS = (
    "browDown_L",
    "browDown_R",
    "browInnerUp_L",
    "browInnerUp_R",
    "browOuterUp_L",
    "browOuterUp_R",
    "cheekPuff_L",
    "cheekPuff_R",
    "cheekSquint_L",
    "cheekSquint_R",
    "eyeBlink_L",
    "eyeBlink_R",
    "eyeLookDown_L",
    "eyeLookDown_R",
    "eyeLookIn_L",
    "eyeLookIn_R",
    "eyeLookOut_L",
    "eyeLookOut_R",
    "eyeLookUp_L",
    "eyeLookUp_R",
    "eyeSquint_L",
    "eyeSquint_R",
    "eyeWide_L",
    "eyeWide_R",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimple_L",
    "mouthDimple_R",
    "mouthFrown_L",
    "mouthFrown_R",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDown_L",
    "mouthLowerDown_R",
    "mouthPress_L",
    "mouthPress_R",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmile_L",
    "mouthSmile_R",
    "mouthStretch_L",
    "mouthStretch_R",
    "mouthUpperUp_L",
    "mouthUpperUp_R",
    "noseSneer_L",
    "noseSneer_R",
)
EXPRESSION_ID = {name: index for index, name in enumerate(EXPRESSIONS)}
IDENTITY_MODES = 20  # number of modes used, of ICT-FaceKit's 100
#: parts of the mesh, in the order of their vertices; _l is the person's own left side (+x)
PARTS = (
    "face",
    "head",
    "mouth",
    "socket_l",
    "socket_r",
    "gums",
    "teeth",
    "sclera_l",
    "iris_l",
    "sclera_r",
    "iris_r",
    "fluid_l",
    "fluid_r",
    "blend_l",
    "blend_r",
    "occlusion_l",
    "occlusion_r",
    "lashes_l",
    "lashes_r",
)
#: ICT-FaceKit's: one past the last vertex of each part
ICT_PART_ENDS = (
    9409,
    11248,
    13294,
    13678,
    14062,
    17039,
    21451,
    22221,
    23021,
    23791,
    24591,
    24795,
    24999,
    25023,
    25047,
    25199,
    25351,
    26035,
    26719,
)
_ARRAYS = ("neutral", "faces", "identity", "expression", "expression_names", "landmarks68")


@dataclass(frozen=True, eq=False, repr=False)
class Basis:
    """A morphable head: y up, z out of the face, x to the person's left; centimetres."""

    neutral: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 3] int32, counter-clockwise from outside
    identity: np.ndarray  # [I, V, 3] float32, one standard deviation each
    expression: np.ndarray  # [53, V, 3] float32, in the order of EXPRESSIONS
    landmarks: np.ndarray  # [68] int64 vertices, Multi-PIE order
    part_ends: tuple[int, ...] = ICT_PART_ENDS

    def part(self, name: str) -> slice:
        """Vertices of a part."""
        k = PARTS.index(name)
        return slice(self.part_ends[k - 1] if k else 0, self.part_ends[k])

    def __post_init__(self):
        _check(self)


def basis_path() -> Path:
    """Path of the imported head: ``actors/head.npz`` beside the user's bases (``$MYSTUDIO_HOME``).

    Raises: BadArtifact: the user has no home folder.
    """
    folder = bases.user_folder()
    if folder is None:
        raise BadArtifact("expected a folder for the actors' head, this user has no home; set MYSTUDIO_HOME to one")
    return folder.parent / "actors" / "head.npz"


def load_basis(path: str | Path | None = None) -> Basis:
    """Load the imported head, or one from a file; results are cached.

    Raises: BadArtifact: there is none, or it is damaged.
    """
    path = Path(path) if path else basis_path()
    if not path.is_file():
        raise BadArtifact(f"expected the actors' 3D head at {path}, there is none; import one with `{COMMAND}`")
    return _cached(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _cached(path: Path, changed: int) -> Basis:
    return read_npz(path)


def read_npz(path: Path) -> Basis:
    """Read a head from ``ict_basis.npz`` or from a file of ``ict.import_basis``; nothing is unpickled.

    Raises: BadArtifact: it is damaged, or not a head.
    """
    try:
        arrays = npz.load(path)
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise ValueError(f"there is no array {missing[0]!r}")
        ends = tuple(int(end) for end in arrays["part_ends"]) if "part_ends" in arrays else ICT_PART_ENDS
    except (ValueError, TypeError) as error:
        raise BadArtifact(f"{path} is not a 3D head ({reason(error)}); import one with `{COMMAND}`") from error
    names = [str(name) for name in arrays["expression_names"]]
    missing = [name for name in EXPRESSIONS if name not in names]
    if missing or arrays["expression"].ndim != 3:
        raise BadArtifact(
            f"expected the {len(EXPRESSIONS)} ARKit expressions in {path}, "
            f"got {len(names)} ({', '.join(missing[:3])} missing); import another with `{COMMAND}`"
        )
    expression = arrays["expression"][[names.index(name) for name in EXPRESSIONS]]
    return Basis(
        arrays["neutral"].astype(np.float32),
        arrays["faces"].astype(np.int32),
        arrays["identity"].astype(np.float32),
        expression.astype(np.float32),
        arrays["landmarks68"].astype(np.int64),
        ends,
    )


def write_npz(basis: Basis, path: Path) -> None:
    """Write a head atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = derived(path, ".", f".{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez_compressed(
                file,
                neutral=basis.neutral,
                faces=basis.faces,
                identity=basis.identity.astype(np.float16),
                expression=basis.expression.astype(np.float16),
                expression_names=np.array(EXPRESSIONS),
                landmarks68=basis.landmarks,
                part_ends=np.array(basis.part_ends),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _check(basis: Basis) -> None:
    count = len(basis.neutral)
    shapes = {
        "neutral": (count, 3),
        "faces": (len(basis.faces), 3),
        "identity": (len(basis.identity), count, 3),
        "expression": (len(EXPRESSIONS), count, 3),
        "landmarks": (68,),
    }
    for name, shape in shapes.items():
        found = getattr(basis, name).shape
        if found != shape:
            raise _bad(f"{name} of shape {shape}", f"{found}")
    ends = basis.part_ends
    if len(ends) != len(PARTS) or ends[-1] != count or any(a > b for a, b in zip(ends, ends[1:])):
        raise _bad(f"{ends[-1] if ends else 0} vertices in {len(PARTS)} parts", f"{count} in {len(ends)}")
    if len(basis.identity) < 14:
        raise _bad("at least 14 identity modes", str(len(basis.identity)))
    for name in ("neutral", "identity", "expression"):
        if not np.isfinite(getattr(basis, name)).all():
            raise _bad(f"finite numbers in {name}", "others")
    for name in ("faces", "landmarks"):
        index = getattr(basis, name)
        if index.min(initial=0) < 0 or index.max(initial=0) >= count:
            raise _bad(f"{name} that point to the {count} vertices", "others")
    height = float(np.ptp(basis.neutral[:, 1]))
    if not 15 < height < 80:
        raise _bad("a head and neck 15 to 80 cm high", f"{height:.3g}")


def _bad(expected: str, found: str) -> BadArtifact:
    return BadArtifact(f"expected a 3D head with {expected}, got {found}; import one with `{COMMAND}`")
