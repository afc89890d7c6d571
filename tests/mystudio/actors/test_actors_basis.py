"""Import of the actors' head model from an ICT-FaceKit checkout or an npz: it is checked and stored for the user."""

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_head import tiny_basis

from mystudio.actors import ict
from mystudio.actors.basis import EXPRESSIONS, PARTS, Basis, basis_path, load_basis, read_npz, write_npz
from mystudio.actors.ict import import_basis
from mystudio.cli import cli
from mystudio.errors import BadArtifact


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def basis() -> Basis:
    return tiny_basis()


@pytest.fixture
def npz(basis, tmp_path):
    write_npz(basis, tmp_path / "head.npz")
    return tmp_path / "head.npz"


def changed(npz, **arrays):
    """Return the npz with some arrays replaced; None removes an array."""
    with np.load(npz) as file:
        kept = dict(file) | arrays
    np.savez(npz, **{name: value for name, value in kept.items() if value is not None})
    return npz


def write_obj(path, vertices, quads=None):
    lines = ["# a mesh", "o head", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices), "vt 0.5 0.5", "vn 0 0 1"]
    for k, face in enumerate(quads if quads is not None else ()):
        lines.append("f " + " ".join(f"{i + 1}/1/1" if k % 2 else str(i + 1) for i in face))
    path.write_text("\n".join(lines) + "\n")


def test_without_a_head_the_sentence_names_the_command(home, tmp_path):
    with pytest.raises(BadArtifact, match="mystudio actors import-basis"):
        load_basis()
    result = CliRunner().invoke(cli, ["actors", "sheet", str(tmp_path / "x.png")], prog_name="mystudio")
    assert result.exit_code == 1 and "mystudio actors import-basis" in result.stderr
    assert not (tmp_path / "x.png").exists()


def test_import_keeps_the_head(home, npz, basis):
    result = CliRunner().invoke(cli, ["actors", "import-basis", str(npz)], prog_name="mystudio")
    assert result.exit_code == 0 and basis_path() == home / "actors" / "head.npz"
    kept = load_basis()
    assert kept is load_basis() and kept.part_ends == basis.part_ends
    assert np.array_equal(kept.neutral, basis.neutral) and np.array_equal(kept.faces, basis.faces)
    assert np.array_equal(kept.landmarks, basis.landmarks)
    assert np.abs(kept.expression - basis.expression).max() < 2e-3  # error of centimetres in half precision
    assert np.abs(kept.identity - basis.identity).max() < 2e-3


def test_expressions_are_found_by_name_not_by_order(npz, basis):
    order = np.random.default_rng(0).permutation(len(EXPRESSIONS))
    shuffled = changed(npz, expression=basis.expression[order], expression_names=np.array(EXPRESSIONS)[order])
    assert np.array_equal(read_npz(shuffled).expression, basis.expression)


@pytest.mark.parametrize(
    "fault",
    [
        {"faces": None},
        {"faces": np.array([[0, 1, 10**6]])},
        {"faces": np.array([[0, 1, -1]])},
        {"neutral": np.zeros((7, 3))},
        {"landmarks68": np.zeros(67, np.int64)},
        {"part_ends": np.arange(len(PARTS))},
        {"expression_names": np.array(["smile"] * len(EXPRESSIONS))},
        {"identity": np.zeros((3, 4, 3))},
    ],
)
def test_what_is_no_head_is_refused(home, npz, fault):
    with pytest.raises(BadArtifact, match="import"):
        import_basis(changed(npz, **fault))
    assert not basis_path().exists()


def test_numbers_and_units_are_checked(home, npz, basis):
    import_basis(npz)
    before = basis_path().read_bytes()
    for scale, words in ((np.nan, "finite"), (1000.0, "cm high"), (0.01, "cm high")):
        with pytest.raises(BadArtifact, match=words):
            import_basis(changed(npz, neutral=basis.neutral * np.float32(scale)))
    assert basis_path().read_bytes() == before and load_basis().neutral.shape == basis.neutral.shape


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"\x80\x04pickle",
        lambda b: b[:3000] + bytes([b[3000] ^ 255]) + b[3001:],
    ],
)
def test_a_damaged_file_is_one_sentence(npz, damage):
    npz.write_bytes(damage(npz.read_bytes()))
    with pytest.raises(BadArtifact, match="import"):
        read_npz(npz)


def test_nothing_is_unpickled(npz):
    changed(npz, neutral=np.array([{"a": 1}], object))
    with pytest.raises(BadArtifact):
        read_npz(npz)


def test_a_checkout_is_read(tmp_path):
    basis = tiny_basis(rows=14, columns=12)
    model = tmp_path / "ICT-FaceKit" / "FaceXModel"
    model.mkdir(parents=True)
    triangles = [tuple(face) for face in basis.faces]
    write_obj(model / ict.NEUTRAL, basis.neutral, [*triangles, (0, 1, 2, 3)])
    for k in range(20):
        write_obj(model / f"identity{k:03d}.obj", basis.neutral + basis.identity[k])
    for name, move in zip(EXPRESSIONS, basis.expression):
        write_obj(model / f"{name}.obj", basis.neutral + move)
    read = ict.read_checkout(tmp_path / "ICT-FaceKit", basis.part_ends, tuple(basis.landmarks))
    assert np.allclose(read.neutral, basis.neutral, atol=1e-5)
    assert np.allclose(read.expression, basis.expression, atol=1e-5)
    assert np.allclose(read.identity, basis.identity, atol=1e-5)
    assert np.array_equal(read.faces, [*triangles, (0, 1, 2), (0, 2, 3)])
    neutral = (model / ict.NEUTRAL).read_text()
    (model / ict.NEUTRAL).write_bytes(neutral.replace("\n", "\r\n").encode("utf-8-sig"))
    assert np.array_equal(ict.read_vertices(model / ict.NEUTRAL), read.neutral.astype(np.float32))
    write_obj(model / "jawOpen.obj", basis.neutral[:-1])
    with pytest.raises(BadArtifact, match=r"jawOpen\.obj"):
        ict.read_checkout(model, basis.part_ends, tuple(basis.landmarks))
    (model / "jawOpen.obj").unlink()
    with pytest.raises(BadArtifact, match=r"jawOpen\.obj"):
        ict.read_checkout(model, basis.part_ends, tuple(basis.landmarks))
    (model / ict.NEUTRAL).write_text("v 1 2 x\n")
    with pytest.raises(BadArtifact, match="damaged"):
        ict.read_checkout(model)


def test_the_real_head(shared):
    real = read_npz(shared / "actors" / "ict_basis.npz")
    assert real.part("face") == slice(0, 9409) and real.neutral.shape == (26719, 3)
    assert tuple(real.landmarks) == ict.LANDMARKS
