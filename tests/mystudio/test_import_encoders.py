"""Generators inside checkpoints of other programs (pSp, e4e, ReStyle, PTI): imported with the same pictures, and told.

The files have the names and shapes of the real ones: an encoder's layers beside the decoder's, options, and the mean w
once a layer.
"""

import argparse
import pathlib

import pytest
import torch
from foreign_files import RosinalityGenerator, official_pickle, random_generator, torch_bytes

from mystudio.cli import cli
from mystudio.errors import BadCheckpoint, UnsafeCheckpoint
from mystudio.stylegan2.checkpoint import import_checkpoint, load_generator

WIDE = 20  # numbers of a w
LAYERS = 8


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return RosinalityGenerator().eval()


def encoder():
    """Some layers of the usual encoder, by their names."""
    return {
        "input_layer.0.weight": torch.zeros(4, 3, 3, 3),
        "input_layer.1.running_mean": torch.zeros(4),
        "input_layer.1.num_batches_tracked": torch.tensor(7),
        "body.0.res_layer.0.weight": torch.zeros(4),
        "styles.0.convs.0.weight": torch.zeros(4, 4, 3, 3),
        "styles.0.linear.weight": torch.zeros(4, 4),
        "latlayer1.weight": torch.zeros(4, 4, 1, 1),
    }


OPTIONS = {
    "device": "cuda:0", "stylegan_size": 32, "encoder_type": "Encoder4Editing", "start_from_latent_avg": True,
    "resize_factors": None, "progressive_steps": [0, 20000], "exp_dir": pathlib.PurePosixPath("new/exp").name,
}  # fmt: skip
MEAN = torch.randn(WIDE, generator=torch.Generator().manual_seed(9))


def whole(state, **more):
    """A checkpoint of an encoder: its own layers, the decoder's, options, and the mean w once a layer."""
    state = {f"encoder.{k}": v for k, v in encoder().items()} | {f"decoder.{k}": v for k, v in state.items()}
    return {"state_dict": state, "opts": OPTIONS, "latent_avg": MEAN.repeat(LAYERS, 1)} | more


def ddp(state):
    return {f"module.{name}": value for name, value in state.items()}


FORMS = {
    "bare state dictionary": (lambda s: s, "the whole file", False),
    "bare, of a distributed run": (ddp, "module.*", False),
    "bare, with its mean": (lambda s: {**s, "latent_avg": MEAN}, "the whole file", True),
    "g_ema of a distributed run": (lambda s: {"g_ema": ddp(s), "latent_avg": MEAN}, "g_ema: module.*", True),
    "g alone": (lambda s: {"g": s, "g_optim": {"state": {}}}, "g", False),
    "averaged before raw": (lambda s: {"g": {k: v + 1 for k, v in s.items()}, "g_ema": s}, "g_ema", False),
    "pSp": (whole, "state_dict: decoder.*", True),
    "e4e while training": (
        lambda s: whole(s, discriminator_state_dict={"mlp.0.weight": torch.zeros(3)}, global_step=9),
        "state_dict: decoder.*", True,
    ),
    "options as a namespace": (
        lambda s: whole(s) | {"opts": argparse.Namespace(exp_dir=pathlib.PosixPath("a"), device=torch.device("cpu"))},
        "state_dict: decoder.*", True,
    ),
    "ReStyle, of a distributed run": (
        lambda s: {**whole(s), "state_dict": ddp(whole(s)["state_dict"])}, "state_dict: module.decoder.*", True,
    ),
    "HyperStyle": (
        lambda s: {"state_dict": {"hypernet.refinement_blocks.0.weight": torch.zeros(2)}
                   | {f"decoder.{k}": v for k, v in s.items()}, "latent_avg": MEAN[None], "opts": OPTIONS},
        "state_dict: decoder.*", True,
    ),
    "mean inside the state": (
        lambda s: {"state_dict": whole(s)["state_dict"] | {"latent_avg": MEAN.repeat(LAYERS, 1)}},
        "state_dict: decoder.*", True,
    ),
    "no outer dictionary": (lambda s: whole(s)["state_dict"], "decoder.*", False),
}  # fmt: skip


def imported(tmp_path, content, name="net.pt"):
    (tmp_path / name).write_bytes(content)
    info = import_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
    return load_generator(tmp_path / "out.safetensors"), info


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_generator_in_it_draws_the_same(form, legacy, theirs, tmp_path):
    make, part, mean = FORMS[form]
    ours, info = imported(tmp_path, torch_bytes(make(theirs.state_dict()), legacy))
    z = torch.randn(2, WIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(theirs.mapping(z))
        image = ours(ours.broadcast(ours.mapping(z)))
    assert (image - expected).abs().max() < 1e-4 * expected.abs().max()
    assert info["source_part"] == part and info["source_form"] == "stylegan2-pytorch state"
    assert (info["w_avg"] == "stored") == mean and (not mean or torch.equal(ours.mapping.w_avg, MEAN))


def test_numpy_arrays_beside_and_in_the_weights_are_read(theirs, tmp_path):
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    content = {"g_ema": state, "latent_avg": MEAN.numpy(), "random_state": torch.arange(6).numpy()}
    ours, _ = imported(tmp_path, torch_bytes(content))
    same, _ = imported(tmp_path, torch_bytes({"g_ema": theirs.state_dict(), "latent_avg": MEAN}))
    assert torch.equal(ours.mapping.w_avg, MEAN)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in ours.state_dict().items())


def test_means_that_differ_from_layer_to_layer_are_averaged(theirs, tmp_path):
    rows = torch.randn(1, LAYERS, WIDE, generator=torch.Generator().manual_seed(2))
    ours, _ = imported(tmp_path, torch_bytes(whole(theirs.state_dict()) | {"latent_avg": rows}))
    assert torch.allclose(ours.mapping.w_avg, rows[0].mean(0), atol=1e-6)


def test_noise_that_is_missing_altogether_is_drawn_anew_and_told(theirs, tmp_path):
    """Checkpoints of an older stylegan2-pytorch have none; there it differs from run to run."""
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("noises.")}
    ours, info = imported(tmp_path, torch_bytes(whole(state)))
    again, _ = imported(tmp_path, torch_bytes(whole(state)))
    noise = ours.synthesis.b32.conv1.noise_const
    assert "drawn anew" in info["noise_const"] and noise.shape == (32, 32) and 0.9 < noise.std() < 1.1
    assert torch.equal(noise, again.synthesis.b32.conv1.noise_const)
    assert torch.equal(ours.synthesis.b4.const, state["input.input"][0])


# ---- PTI: official networks, whole or as a state dictionary ----


OFFICIAL = {
    "state dictionary": (lambda s: s, "the whole file"),
    "of a distributed run": (ddp, "module.*"),
    "inside": (lambda s: {"state_dict": s, "pivots": {"a": torch.zeros(1, LAYERS, 24)}}, "state_dict"),
    "G_ema as a state": (lambda s: {"G": {k: v + 1 for k, v in s.items()}, "G_ema": s}, "G_ema"),
    "an encoder's decoder": (lambda s: {"state_dict": {f"decoder.{k}": v for k, v in s.items()}},
                             "state_dict: decoder.*"),
}  # fmt: skip


@pytest.mark.parametrize("form", OFFICIAL)
def test_official_state_dictionaries(form, tmp_path):
    g = random_generator()
    make, part = OFFICIAL[form]
    ours, info = imported(tmp_path, torch_bytes(make(g.state_dict())))
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {k: v.tolist() for k, v in g.state_dict().items()}
    assert info["source_part"] == part and info["source_form"] == "official state" and info["w_avg"] == "stored"


@pytest.mark.parametrize("keys", [(), ("generator",)])
def test_a_tuned_network_that_was_saved_whole(keys, tmp_path):
    """PTI saves the network itself; others put it beside its pivots."""
    g, marker = random_generator(), tmp_path / "ran"
    ours, info = imported(tmp_path, official_pickle(g, marker, keys=keys or ("whole",), alone=not keys))
    assert not marker.exists() and torch.equal(ours.synthesis.b8.conv0.weight, g.synthesis.b8.conv0.weight)
    assert info["source_part"] == (keys[0] if keys else "the whole file")


def test_a_checkpoint_without_a_generator_is_told(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"'decoder\.\*' \(pSp, e4e\) in net.pt, got 'state_dict', 'opts'"):
        imported(tmp_path, torch_bytes({"state_dict": encoder(), "opts": OPTIONS}))


def test_a_decoder_of_another_kind_is_told_with_its_part(theirs, tmp_path):
    state = theirs.state_dict() | {"extra.weight": torch.zeros(1)}
    with pytest.raises(BadCheckpoint, match=r"in 'state_dict: decoder\.\*', got an unknown one: 'extra.weight'"):
        imported(tmp_path, torch_bytes(whole(state)))


class Hostile:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("ran"),)


def test_options_cannot_run_code(theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnsafeCheckpoint, BadCheckpoint)):
        imported(tmp_path, torch_bytes(whole(theirs.state_dict()) | {"opts": Hostile()}))
    assert not (tmp_path / "ran").exists()


def test_the_command_tells_which_part_it_took(theirs, tmp_path, monkeypatch):
    from click.testing import CliRunner

    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "home"))
    (tmp_path / "e4e.pt").write_bytes(torch_bytes(whole(theirs.state_dict())))
    told = CliRunner().invoke(cli, ["base", "import", str(tmp_path / "e4e.pt")])
    assert told.exit_code == 0 and "e4e: 32 px, from the part 'state_dict: decoder.*' of e4e.pt, at " in told.output
