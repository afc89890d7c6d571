"""Imported checkpoints draw the same pictures as their source, and no code in them runs."""

import argparse
import sys

import pytest
import torch
from foreign_files import RosinalityGenerator, official_pickle, random_generator, torch_bytes

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.checkpoint import digest, import_checkpoint, load_generator, read_info


def imported(tmp_path, content, name="net.pkl", **options):
    src, dst = tmp_path / name, tmp_path / "out.safetensors"
    src.write_bytes(content)
    info = import_checkpoint(src, dst, **options)
    assert info == read_info(dst) and info["source_sha256"] == digest(src) and info["source_file"] == name
    return load_generator(dst), info


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_official_pickle(tmp_path, protocol):
    g, marker = random_generator(), tmp_path / "ran"
    loaded, info = imported(tmp_path, official_pickle(g, marker, protocol))
    assert not marker.exists() and "torch_utils" not in sys.modules
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in g.state_dict().items()
    }
    ws = torch.randn(2, g.num_ws, g.w_dim)
    with torch.no_grad():
        assert torch.equal(loaded(ws), g(ws))
    assert info["conv_clamp"] == "256" and info["w_avg"] == "stored" and info["resolution"] == "32"


def test_official_pickle_of_half_and_permuted_weights(tmp_path):
    g = random_generator().half()
    for name, value in g.named_parameters():
        if name.endswith("conv0.weight"):
            value.data = value.data.contiguous().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
            assert not value.is_contiguous() and not value.is_contiguous(memory_format=torch.channels_last)
    loaded, _ = imported(tmp_path, official_pickle(g))
    for name, value in g.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.float()), name


def test_official_names_of_unusual_shape(tmp_path):
    g = random_generator(64, z_dim=5, w_dim=7, mapping_layers=1, channel_base=700, channel_max=33)
    loaded, info = imported(tmp_path, official_pickle(g))
    assert loaded.state_dict().keys() == g.state_dict().keys()
    ws = torch.randn(1, g.num_ws, 7)
    with torch.no_grad():
        assert torch.equal(loaded(ws), g(ws))
    assert (info["z_dim"], info["mapping_layers"], info["channel_max"]) == ("5", "1", "33")


def with_fact(part, **facts):
    def change(name, state):
        if name.endswith(part):
            state |= facts

    return change


def without(part, kind, key):
    def change(name, state):
        if name == part:
            del state[kind][key]

    return change


def doubled_filter(name, state):
    if name.endswith("b8."):
        state["_buffers"]["resample_filter"] = torch.ones(4, 4) / 16


def broken_weight(name, state):
    if name.endswith("b8.conv1."):
        state["_parameters"]["weight"] = torch.full_like(state["_parameters"]["weight"], float("nan"))


REFUSED = {
    "conditional": (with_fact("", c_dim=10), "class labels"),
    "other mapping rate": (with_fact("fc0.", bias_gain=1.0), "bias_gain"),
    "other activation": (with_fact("b8.conv1.", activation="swish"), "activation"),
    "residual architecture": (without("synthesis.b8.", "_modules", "torgb"), "missing.*torgb"),
    "without noise": (without("synthesis.b8.conv0.", "_buffers", "noise_const"), "missing.*noise_const"),
    "without const": (without("synthesis.b4.", "_parameters", "const"), "missing.*const"),
    "other filter": (doubled_filter, "filter"),
    "not finite": (broken_weight, "finite"),
    "text for a tensor": (lambda n, s: n == "mapping.fc0." and s["_parameters"].update(weight="x"), "tensor"),
    "text for modules": (lambda n, s: n == "mapping." and s.update(_modules="x"), "dictionary"),
    "wrong shape": (lambda n, s: n == "mapping.fc1." and s["_parameters"].update(bias=torch.zeros(3)), "shape"),
    "huge": (lambda n, s: n == "mapping.fc0." and s["_parameters"].update(weight=torch.zeros(1, 9000)), "z_dim"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_official_networks_that_do_not_fit(tmp_path, kind):
    change, message = REFUSED[kind]
    with pytest.raises(BadCheckpoint, match=message):
        imported(tmp_path, official_pickle(random_generator(), change=change))
    assert not (tmp_path / "out.safetensors").exists()


def test_other_networks_are_named(tmp_path):
    with pytest.raises(BadCheckpoint, match="'G_ema'.*got 'G', 'D'"):
        imported(tmp_path, official_pickle(random_generator(), keys=("G", "D")))
    with pytest.raises(BadCheckpoint, match="Discriminator"):
        imported(tmp_path, official_pickle(random_generator(), class_name="Discriminator"))


def rosinality(seed=0, **shape):
    torch.manual_seed(seed)
    return RosinalityGenerator(**shape).eval()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "shape", [{}, {"widths": (24, 24, 24), "layers": 8, "style_dim": 12}, {"widths": (64, 64, 64, 32, 16), "layers": 1}]
)
def test_rosinality(tmp_path, legacy, shape):
    theirs = rosinality(**shape)
    average = torch.randn(theirs.style[1].weight.shape[1])
    content = torch_bytes({"g_ema": theirs.state_dict(), "latent_avg": average}, legacy)
    ours, info = imported(tmp_path, content, "net.pt")
    z = torch.randn(3, ours.z_dim)
    with torch.no_grad():
        w = ours.mapping(z)
        expected = theirs.mapping(z)
        assert (w - expected).abs().max() < 1e-4 * expected.abs().max()
        image, expected = ours(ours.broadcast(w)), theirs(expected)
    assert (image - expected).abs().max() < 1e-4 * expected.abs().max().clamp(min=1)
    assert torch.equal(ours.mapping.w_avg, average) and info["w_avg"] == "stored"


def test_rosinality_training_state_without_average(tmp_path):
    """A training checkpoint carries optimisers and parsed arguments and no mean of w."""
    theirs = rosinality()
    optimiser = torch.optim.Adam(theirs.parameters())
    theirs(theirs.mapping(torch.randn(1, 20))).sum().backward()
    optimiser.step()
    content = torch_bytes(
        {
            "g": theirs.state_dict(),
            "g_ema": theirs.state_dict(),
            "g_optim": optimiser.state_dict(),
            "args": argparse.Namespace(size=32, path="faces"),
            "ada_aug_p": 0.0,
        }
    )
    ours, info = imported(tmp_path, content, "550000.pt")
    with torch.no_grad():
        mean = theirs.mapping(torch.randn(20_000, 20)).mean(0)
        spread = theirs.mapping(torch.randn(1000, 20)).std()
    assert (ours.mapping.w_avg - mean).abs().max() < 0.1 * spread
    assert "10000" in info["w_avg"]


def test_rosinality_that_does_not_fit(tmp_path):
    state = rosinality().state_dict()
    for change, message in (
        ({"extra.weight": torch.zeros(1)}, "unknown one: 'extra.weight'"),
        ({"convs.0.conv.blur.kernel": torch.ones(4, 4)}, "filter"),
        ({"noises.noise_0": 3}, "named tensors"),
        ({"style.1.weight": torch.zeros(20, 20, dtype=torch.int64)}, "floating-point"),
        ({"convs.0.conv.weight": torch.zeros(1, 9, 9, 3, 3)}, "shape"),
    ):
        with pytest.raises(BadCheckpoint, match=message):
            imported(tmp_path, torch_bytes({"g_ema": state | change}), "net.pt")
    with pytest.raises(BadCheckpoint, match="widths"):
        imported(tmp_path, torch_bytes({"g_ema": rosinality(widths=(16, 32)).state_dict()}), "net.pt")
    del state["noises.noise_3"]
    with pytest.raises(BadCheckpoint, match="missing.*noise_const"):
        imported(tmp_path, torch_bytes({"g_ema": state}), "net.pt")


def test_half_import_stays_close(tmp_path):
    g = random_generator()
    imported(tmp_path, official_pickle(g))
    full = (tmp_path / "out.safetensors").stat().st_size
    loaded, _ = imported(tmp_path, official_pickle(g), half=True)
    assert (tmp_path / "out.safetensors").stat().st_size < 0.6 * full
    ws = torch.randn(2, g.num_ws, g.w_dim)
    with torch.no_grad():
        image = g(ws)
        assert (loaded(ws) - image).abs().max() < 0.02 * image.abs().max()


def test_own_files_can_be_imported(tmp_path):
    g, _ = imported(tmp_path, official_pickle(random_generator()))
    info = import_checkpoint(tmp_path / "out.safetensors", tmp_path / "again.safetensors")
    assert info["source_file"] == "net.pkl"
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()
