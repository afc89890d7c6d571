"""ArcFace's weights of a user: files with the names and shapes of the real ones, read without running code."""

import collections
import pickle
from dataclasses import replace

import pytest
import torch
from hyper_weights import MODEL
from safetensors.torch import save_file

from mystudio.bases import find_base
from mystudio.engines.hyper.arcface import ArcFace, load_arcface
from mystudio.engines.hyper.weights import half, new_networks, restored
from mystudio.errors import BadCheckpoint, StudioError


@pytest.fixture(scope="module")
def theirs() -> ArcFace:
    torch.manual_seed(0)
    return ArcFace()


def test_the_names_are_those_of_the_public_file(theirs):
    names = set(theirs.state_dict())
    assert {
        "input_layer.0.weight", "input_layer.2.weight", "body.0.res_layer.1.weight", "body.0.res_layer.5.fc1.weight",
        "body.3.shortcut_layer.0.weight", "body.23.res_layer.4.running_var", "output_layer.3.bias",
        "output_layer.4.running_mean",
    } <= names  # fmt: skip
    assert len(theirs.body) == 24 and theirs.state_dict()["output_layer.3.weight"].shape == (512, 512 * 49)
    assert sum(p.numel() for p in theirs.parameters()) == pytest.approx(43.8e6, rel=0.01)


@pytest.mark.parametrize("form", ["model_ir_se50.pth", "facenet.pth", "whole.pth", "model.safetensors"])
def test_files_of_users_give_the_same_numbers(theirs, tmp_path, form):
    state, path = theirs.state_dict(), tmp_path / form
    if form == "model.safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif form == "facenet.pth":
        torch.save({f"facenet.{name}": value for name, value in state.items()}, path)
    else:
        torch.save(collections.OrderedDict(state) if form.startswith("model") else {"state_dict": dict(state)}, path)
    found = load_arcface(path)
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = found(images)
    assert maps.shape == (1, 512, 7, 7) and torch.equal(maps, theirs(images))
    assert torch.equal(found.embed(images), theirs.embed(images)) and not found.training
    assert not any(p.requires_grad for p in found.parameters())


class Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_other_files_are_refused(theirs, tmp_path, capsys):
    for name, content in (("junk.pth", b"junk"), ("evil.pth", pickle.dumps({"input_layer.0.weight": Evil()}))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudioError):
            load_arcface(tmp_path / name)
    assert "ran" not in capsys.readouterr().out
    torch.save({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(BadCheckpoint, match="IR-SE-50"):
        load_arcface(tmp_path / "part.pth")
    with pytest.raises(BadCheckpoint):
        load_arcface(tmp_path / "missing.safetensors")


def test_an_engine_with_it_is_stored_and_restored(theirs):
    model, generator = replace(MODEL, appearance="arcface"), find_base("people128").generator
    nets = new_networks(model, generator)
    nets.appearance.load_state_dict(theirs.state_dict())
    again = restored(model, generator, half(nets))
    images, motion = torch.zeros(1, 3, 128, 128), torch.zeros(1, 66, 3)
    with torch.no_grad():
        features = again.reenactor.features(again.appearance(images), again.pose(motion))
    assert features.shape == (1, 11, 8) and features.isfinite().all()
