"""Direction files of other programs: every usual format, shape and type of number; faults get one sentence."""

import pickle
import re
import unicodedata

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mystudio.errors import BadEdit
from mystudio.storage.directions import load_directions

D, L = 16, 6
W = torch.randn(D, generator=torch.Generator().manual_seed(3)).half().float()  # survives float16
ROWS = torch.randn(L, D, generator=torch.Generator().manual_seed(4)).half().float()


def write(path, value, name="smile"):
    """Write one tensor in the format that the ending names; formats with names call it ``name``."""
    match path.suffix.lower():
        case ".npy":
            with open(path, "wb") as file:
                np.save(file, np.asarray(value))
        case ".npz":
            with open(path, "wb") as file:
                np.savez(file, **{name: np.asarray(value)})
        case ".safetensors":
            save_file({name: value.contiguous()}, path)
        case _:
            torch.save({name: value}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".NPY", ".npz", ".NPZ", ".pt", ".pth", ".PT", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(D,), (1, D), (1, 1, D), (D, 1)])
def test_every_format_gives_the_numbers(suffix, dtype, shape, tmp_path):
    found = load_directions(write(tmp_path / f"smile{suffix}", W.to(dtype).reshape(shape)), D, L)
    assert list(found) == ["smile"] and torch.equal(found["smile"], W)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("shape", [(L, D), (1, L, D), (L, 1, D)])
def test_layers_may_move_in_their_own_way(suffix, shape, tmp_path):
    found = load_directions(write(tmp_path / f"smile{suffix}", ROWS.double().reshape(shape)), D, L)
    assert torch.equal(found["smile"], ROWS)
    same = load_directions(write(tmp_path / f"same{suffix}", W.repeat(L, 1).reshape(shape)), D, L)
    assert torch.equal(next(iter(same.values())), W)  # equal rows are one direction for all layers


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_of_one_tensor_has_the_files_name(legacy, tmp_path):
    torch.save(torch.nn.Parameter(W[None]), tmp_path / "age.pt", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load_directions(tmp_path / "age.pt", D, L)["age"], W)


def test_the_content_decides_and_not_the_ending(tmp_path):
    for suffix in (".npy", ".npz", ".pt"):
        path = write(tmp_path / f"smile{suffix}", W)
        assert torch.equal(load_directions(path.rename(tmp_path / "smile"), D, L)["smile"], W)


def test_fortran_order_whole_numbers_and_other_byte_orders(tmp_path):
    for value in (np.asfortranarray(ROWS.numpy()), ROWS.numpy().astype(">f8")):
        np.save(tmp_path / "a.npy", value)
        assert torch.equal(load_directions(tmp_path / "a.npy", D, L)["a"], ROWS)
    np.save(tmp_path / "a.npy", np.arange(D))
    assert torch.equal(load_directions(tmp_path / "a.npy", D)["a"], torch.arange(D).float())


def test_names_have_one_spelling(tmp_path):
    loose = unicodedata.normalize("NFD", "\ufeff größe ")
    assert list(load_directions(write(tmp_path / "a.npz", W, loose), D)) == ["größe"]
    torch.save({loose: W, "about": "made by hand", "strength": 3}, tmp_path / "a.pt")
    assert list(load_directions(tmp_path / "a.pt", D)) == ["größe"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("shape", [(D + 1,), (L + 2, D), (1, 18, 512), (D, D), (2, L, D), (0,)])
def test_another_shape_is_told_with_both_shapes(suffix, shape, tmp_path):
    path = write(tmp_path / f"smile{suffix}", torch.ones(shape))
    with pytest.raises(BadEdit) as caught:
        load_directions(path, D, L)
    told = str(caught.value)
    assert f"got shape {list(shape)}" in told and f"[{D}]" in told and f"[{L}, {D}]" in told and "'smile'" in told


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("value", [torch.full((D,), torch.nan), torch.full((D,), 1e300, dtype=torch.float64)])
def test_numbers_that_are_not_finite_are_told(suffix, value, tmp_path):
    with pytest.raises(BadEdit, match="NaN or infinity"):
        load_directions(write(tmp_path / f"smile{suffix}", value), D, L)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_arrays_in_pickles_and_torch_files_are_read(protocol, order, tmp_path):
    content = {"smile": np.asarray(W), "age": np.asarray(ROWS.double(), order=order), "mean": np.ones((80, D))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
    for name in ("a.pkl", "a.pt"):
        found = load_directions(tmp_path / name, D, L)
        assert torch.equal(found["smile"], W) and torch.equal(found["age"], ROWS)
    (tmp_path / "smile.pkl").write_bytes(pickle.dumps(np.asarray(W), protocol))
    assert torch.equal(load_directions(tmp_path / "smile.pkl", D, L)["smile"], W)


@pytest.mark.parametrize("value", [np.array([{}] * D), np.ones(D, ">f8"), np.ones(D, complex), np.array(["a"] * D)])
def test_numpy_arrays_of_other_kinds_in_pickles_are_told(value, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"smile": value}))
    with pytest.raises(BadEdit, match="numpy numbers in the checkpoint, got another kind"):
        load_directions(tmp_path / "a.pkl", D, L)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_tensors_beside_the_directions_are_left_out_unless_they_are_wanted(suffix, tmp_path):
    path, content = (
        tmp_path / f"a{suffix}",
        {"smile": W, "components": torch.ones(80, 1, D), "strength": torch.ones(())},
    )
    match suffix:
        case ".npz":
            np.savez(path, **{name: np.asarray(value) for name, value in content.items()})
        case ".pt":
            torch.save({"about": "made by hand", "directions": content}, path)
        case _:
            save_file(content, path)
    found = load_directions(path, D, L, ["smile"])
    assert list(found) == ["smile"] and torch.equal(found["smile"], W)
    with pytest.raises(BadEdit, match=rf"'components'.*got shape \[80, 1, {D}\]; if it holds several directions"):
        load_directions(path, D, L, ["components"])


class Hostile:
    def __reduce__(self):
        return open, ("ran", "w")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".npy"])
def test_no_code_in_a_file_is_executed(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if suffix == ".npy":
        np.save("a.npy", np.array([Hostile()]), allow_pickle=True)
    elif suffix == ".pkl":
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(Hostile()))
    else:
        torch.save({"smile": Hostile()}, f"a{suffix}")
    with pytest.raises(BadEdit, match=r"expected directions as \.safetensors"):
        load_directions(tmp_path / f"a{suffix}", D, L)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hi", b"smile = 1.0\n" * 40, bytes(200), b"\xff" * 200])
def test_a_file_of_another_kind_is_told_in_the_user_s_words(content, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(BadEdit, match=r"a\.txt: expected directions as .* \(its content is none of these\)$"):
        load_directions(tmp_path / "a.txt", D, L)


def test_a_folder_is_told_as_one(tmp_path):
    with pytest.raises(BadEdit, match="is a folder, expected a file of directions; give a file as"):
        load_directions(tmp_path, D, L)


@pytest.mark.parametrize("content", [["a"], {}, {"about": "nothing"}, 3, torch.ones(D, dtype=torch.int64) > 0])
def test_a_torch_file_without_directions_is_told(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(BadEdit, match=f"{re.escape(str(tmp_path))}.*expected"):
        load_directions(tmp_path / "a.pt", D, L)


@pytest.mark.parametrize("cut", [0, 5, 40, 100])
def test_a_cut_array_is_told(cut, tmp_path):
    data = write(tmp_path / "a.npy", W).read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:cut] if cut < 100 else data[:-1])
    with pytest.raises(BadEdit, match="expected directions as"):
        load_directions(tmp_path / "a.npy", D, L)
