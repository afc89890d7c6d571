"""Tensors in torch's files: read exactly, or rejected if the metadata is wrong or the file is damaged."""

import io
import pickle
import random
import zipfile

import pytest
import torch
from foreign_files import RosinalityGenerator, glob, official_pickle, random_generator, text, torch_bytes

from mystudio.errors import BadCheckpoint, StudioError, UnsafeCheckpoint
from mystudio.stylegan2.checkpoint import import_checkpoint
from mystudio.stylegan2.torchfile import open_torch

REFUSALS = (UnsafeCheckpoint, BadCheckpoint)


def tensor_pickle(numel, offset, size, stride):
    """Return a hand-made zip: one tensor of ``numel`` floats with false metadata."""
    stream = io.BytesIO()
    number, sizes, strides = (pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride))
    storage = (
        b"("
        + text("storage")
        + glob("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + pickle.dumps(numel, 2)[2:-1]
        + b"tQ"
    )
    content = (
        b"\x80\x02}"
        + text("g_ema")
        + b"}"
        + text("input.input")
        + glob("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + number
        + sizes
        + strides
        + b"\x89}tRss."
    )
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/data/0", bytes(4 * 16))
    return stream.getvalue()


@pytest.mark.parametrize(
    "numbers",
    [
        (16, 8, (4, 4), (4, 1)),
        (16, 0, (4, 4), (5, 1)),
        (16, 0, (1 << 20, 1 << 20), (0, 0)),
        (16, -1, (4,), (1,)),
        (16, 0, (4, 4), (4, -1)),
        (16, 0, (4,), (1, 1)),
        (16, 0, (1,) * 60, (1,) * 60),
        (16, 1 << 62, (1,), (1,)),
        (1 << 62, 0, (4,), (1,)),
        (-5, 0, (4,), (1,)),
        (16.0, 0, (4,), (1,)),
        (16, 0, (True,), (1,)),
        (16, 0, (2**40, 0), (1, 1)),
    ],
)
def test_tensors_outside_their_storage(tmp_path, numbers):
    src = tmp_path / "net.pt"
    src.write_bytes(tensor_pickle(16, 0, (4, 4), (4, 1)))
    assert open_torch(src)["g_ema"]["input.input"].load().shape == (4, 4)  # the valid file can be read
    src.write_bytes(tensor_pickle(*numbers))
    with pytest.raises(BadCheckpoint):
        open_torch(src)


def test_storage_of_another_length(tmp_path):
    src = tmp_path / "net.pt"
    src.write_bytes(tensor_pickle(17, 0, (17,), (1,)))
    with pytest.raises(BadCheckpoint, match="count"):
        open_torch(src)["g_ema"]["input.input"].load()


def test_every_kind_of_number_is_read(tmp_path):
    values = torch.tensor([[1.5, -2.0, 3.25], [0.0, 64.0, -0.125]])
    src = tmp_path / "x.pt"
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for legacy in (False, True):
            src.write_bytes(torch_bytes({"a": values.to(dtype).t(), "b": [values.to(dtype)[1:, ::2]]}, legacy))
            content = open_torch(src)
            assert torch.equal(content["a"].load(), values.t())
            assert torch.equal(content["b"][0].load(), values[1:, ::2])


@pytest.mark.parametrize("form", ["pkl", "zip", pytest.param("legacy", marks=pytest.mark.slow)])
def test_truncated_and_flipped_files(tmp_path, form):
    """Truncated files are rejected; a flipped bit is rejected or harmless, and raises no other error."""
    marker, src, dst = tmp_path / "ran", tmp_path / "net.bin", tmp_path / "out.safetensors"
    state = {"g_ema": RosinalityGenerator((4, 4), 4, 1).state_dict(), "latent_avg": torch.zeros(4)}
    whole = official_pickle(random_generator(8), marker) if form == "pkl" else torch_bytes(state, form == "legacy")
    src.write_bytes(whole)
    import_checkpoint(src, dst)
    choice = random.Random(0)
    for cut in [0, 1, 2, 10, len(whole) - 1, *(choice.randrange(len(whole)) for _ in range(60))]:
        src.write_bytes(whole[:cut])
        with pytest.raises(REFUSALS):
            import_checkpoint(src, dst)
    refused = 0
    for _ in range(150):
        position = choice.randrange(len(whole))
        src.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << choice.randrange(8)]) + whole[position + 1 :])
        try:
            import_checkpoint(src, dst)
        except StudioError:
            refused += 1
    assert not marker.exists() and refused > 10
