"""Import of the 3D head, and the reader of ICT-FaceKit checkouts (github.com/ICT-VGL/ICT-FaceKit, MIT)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mystudio.actors.basis import EXPRESSIONS, ICT_PART_ENDS, IDENTITY_MODES, Basis, basis_path, read_npz, write_npz
from mystudio.errors import BadArtifact, OutputFailed
from selfscan.io.text import read_text

NEUTRAL = "generic_neutral_mesh.obj"
#: vertices of the 68 Multi-PIE landmarks in ICT-FaceKit's mesh
LANDMARKS = (
    1225,
    1888,
    1052,
    367,
    1719,
    1722,
    2199,
    1447,
    966,
    3661,
    4390,
    3927,
    3924,
    2608,
    3272,
    4088,
    3443,
    268,
    493,
    1914,
    2044,
    1401,
    3615,
    4240,
    4114,
    2734,
    2509,
    978,
    4527,
    4942,
    4857,
    1140,
    2075,
    1147,
    4269,
    3360,
    1507,
    1542,
    1537,
    1528,
    1518,
    1511,
    3742,
    3751,
    3756,
    3721,
    3725,
    3732,
    5708,
    5695,
    2081,
    0,
    4275,
    6200,
    6213,
    6346,
    6461,
    5518,
    5957,
    5841,
    5702,
    5711,
    5533,
    6216,
    6207,
    6470,
    5517,
    5966,
)


def import_basis(source: str | Path) -> Path:
    """Check a head and store it for the user; an older one is replaced.

    Args:
        source: a checkout of ICT-FaceKit (or its FaceXModel folder), or an ``ict_basis.npz``.
    Returns: path of the stored head.
    Raises:
        BadArtifact: it is not a complete head.
        OutputFailed: the user's folder cannot be written.
    """
    source = Path(source)
    if not source.exists():
        raise BadArtifact(f"expected an ICT-FaceKit checkout or an npz, {source} is not there; check the path")
    basis = read_checkout(source) if source.is_dir() else read_npz(source)
    path = basis_path()
    try:
        write_npz(basis, path)
    except OSError as error:
        raise OutputFailed(
            f"{path} could not be written ({error.strerror or error}); free some space or set "
            "MYSTUDIO_HOME to another folder"
        ) from error
    return path


def read_checkout(
    folder: Path, part_ends: tuple[int, ...] = ICT_PART_ENDS, landmarks: tuple[int, ...] = LANDMARKS
) -> Basis:
    """Read the neutral, identity and expression meshes; the latter two become differences to the neutral one.

    Args:
        folder: the checkout, or its folder with the .obj files.
        part_ends, landmarks: layout of the mesh, see ``Basis``.
    Raises: BadArtifact: a file is missing, damaged or of another size.
    """
    model = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    neutral = read_vertices(model / NEUTRAL)
    identities = [f"identity{k:03d}" for k in range(IDENTITY_MODES)]
    with ThreadPoolExecutor(2) as pool:
        moved = list(pool.map(lambda name: _difference(model / f"{name}.obj", neutral), (*identities, *EXPRESSIONS)))
    return Basis(
        neutral,
        read_faces(model / NEUTRAL),
        np.stack(moved[:IDENTITY_MODES]),
        np.stack(moved[IDENTITY_MODES:]),
        np.array(landmarks, np.int64),
        part_ends,
    )


def read_vertices(path: Path) -> np.ndarray:
    """Vertices [V, 3] float32 of a Wavefront .obj.

    Raises: BadArtifact: it is missing, or damaged.
    """
    try:
        rows = [line.split()[1:4] for line in _lines(path) if line.startswith("v ")]
        return np.array(rows, np.float32).reshape(-1, 3)
    except ValueError as error:
        raise BadArtifact(f"expected vertices in {path}, a line of it is damaged; get that file again") from error


def read_faces(path: Path) -> np.ndarray:
    """Triangles [F, 3] int32 of a Wavefront .obj; larger polygons become fans.

    Raises: BadArtifact: it is missing, or damaged.
    """
    triangles = []
    try:
        for line in _lines(path):
            if line.startswith("f "):
                corners = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
                triangles += [(corners[0], a, b) for a, b in zip(corners[1:], corners[2:])]
    except ValueError as error:
        raise BadArtifact(f"expected faces in {path}, a line of it is damaged; get that file again") from error
    return np.array(triangles, np.int32).reshape(-1, 3)


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError as error:
        raise BadArtifact(
            f"expected {path} of ICT-FaceKit, it cannot be read ({error.strerror}); give the folder "
            "of a complete checkout"
        ) from error


def _difference(path: Path, neutral: np.ndarray) -> np.ndarray:
    vertices = read_vertices(path)
    if vertices.shape != neutral.shape:
        raise BadArtifact(f"expected {len(neutral)} vertices in {path}, got {len(vertices)}; get that file again")
    return vertices - neutral
