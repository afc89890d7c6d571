"""The personal engine on the GPU: whole stages compared with the CPU, and each part that settings can select."""

from dataclasses import replace
from types import SimpleNamespace

import actor_avatar
import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints
from simulated_gpu import simulated_gpu

from mystudio.bases import find_base
from mystudio.engines import personal
from mystudio.engines.personal.anchors import InvertSettings, invert
from mystudio.engines.personal.problem import SolveSettings
from mystudio.engines.personal.regress import RegressSettings
from mystudio.engines.personal.state import AXES
from mystudio.engines.personal.tune import TuneSettings, tune
from mystudio.motion.retarget import RetargetSettings
from mystudio.stylegan2.generator import Generator
from selfscan.perceptual.metric import load_perceptual

SETTINGS = SimpleNamespace(
    invert=InvertSettings(steps=1, batch=4),
    personalize=TuneSettings(steps=2, batch=2, check_every=1, resolution=0, width=0, precision="float32"),
    regress=RegressSettings(samples=4, rank=4, steps=20),
    retarget=RetargetSettings(),
    reenact=SolveSettings(steps=2, window=8, batch=3),
)
TUNING = TuneSettings(steps=2, batch=2, check_every=1, held_out=1, precision="float32")
FRAMES = 4


def personalized(device, base):
    return personal.personalize(actor_avatar.scan(5), base, SETTINGS, device=device)


@pytest.fixture(scope="module")
def here():
    """The avatar that the CPU makes."""
    return personalized(torch.device("cpu"), find_base("people128"))


@pytest.fixture(scope="module")
def driver():
    return actor_avatar.performance(actor_avatar.path(FRAMES, seed=3), missing=(2,))


def test_personalize_makes_the_avatar_that_the_cpu_makes(here, gpu):
    there = personalized(gpu, find_base("people128"))
    assert next(there.generator.parameters()).device == gpu
    assert (
        torch.allclose(there.state.anchors, here.state.anchors, atol=1e-4) and there.state.anchors.device.type == "cpu"
    )
    mine, theirs = there.generator.cpu().state_dict(), here.generator.state_dict()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) < 0.02  # of two Muon steps of .008
    assert there.info["held_out_distance"] == pytest.approx(here.info["held_out_distance"], rel=0.02)
    assert all(value.device.type == "cpu" for value in there.state.regressor.values())


SOLVERS = {
    "gauss-newton": {},
    "gauss-newton-bfloat16": {"precision": "bfloat16"},
    "adam-axes": {"method": "adam"},
}
MORE_SOLVERS = {
    "adam-hull": {"method": "adam", "space": "hull"},
    "adam-softplus": {"method": "adam", "space": "softplus"},
    "adam-previous": {"method": "adam", "start": "previous"},
}


@pytest.mark.parametrize(
    "chosen",
    [
        *(pytest.param(chosen, id=name) for name, chosen in SOLVERS.items()),
        *(pytest.param(chosen, id=name, marks=pytest.mark.slow) for name, chosen in MORE_SOLVERS.items()),
    ],
)
def test_reenact_finds_the_codes_that_the_cpu_finds(here, driver, chosen):
    settings = SimpleNamespace(retarget=RetargetSettings(), reenact=replace(SETTINGS.reenact, **chosen))
    expected = personal.reenact(here, driver, settings, device=torch.device("cpu"))
    with simulated_gpu() as gpu:
        found = personal.reenact(here, driver, settings, device=gpu)
        images = here.generator.synthesize(personal.decode(here, found, slice(1, 3)))
        assert images.device == gpu and images.shape == (2, 3, 128, 128)
        here.generator.cpu()
    assert np.array_equal(found.outcome, expected.outcome)
    # .007 on a processor without AVX-512
    assert torch.allclose(found.codes[AXES], expected.codes[AXES], atol=1e-2)


@pytest.fixture(scope="module")
def task():
    """A generator of 32 px with anchors and images to be tuned on."""
    torch.manual_seed(0)
    generator = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32)
    anchors = generator.mapping(torch.randn(10, 16)).detach()
    with torch.no_grad():
        images = generator(generator.broadcast(anchors)).clamp(-1, 1) * 0.5
    return generator.requires_grad_(False), anchors, images


@pytest.mark.parametrize(
    "optimizer, precision",
    [pytest.param("muon", "float32", marks=pytest.mark.slow), ("muon", "auto"), ("adam", "bfloat16")],
)
def test_tuning(task, gpu, optimizer, precision):
    generator, anchors, images = task
    settings = replace(TUNING, optimizer=optimizer, precision=precision)
    net, info = tune(generator.to(gpu), anchors.to(gpu), images.to(gpu), load_perceptual(), settings)
    generator.cpu()
    assert all(p.device == gpu and p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())
    assert info["steps"] == 2 and np.isfinite(info["held_out_distance"])


@pytest.mark.parametrize("optimizer", ["muon", pytest.param("adam", marks=pytest.mark.slow)])
def test_tuning_goes_on_from_its_checkpoint(task, gpu, optimizer):
    generator, anchors, images = task
    given = (anchors.to(gpu), images.to(gpu), load_perceptual())
    settings, checkpoints = replace(TUNING, optimizer=optimizer), MemoryCheckpoints()
    whole, _ = tune(generator.to(gpu), *given, settings)
    tune(generator, *given, replace(settings, steps=1), checkpoints=checkpoints)
    resumed, info = tune(generator, *given, settings, checkpoints=checkpoints)
    generator.cpu()
    assert info["steps"] == 2
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.allclose(a, b, atol=1e-5)


def test_tuning_rolls_back_on_the_gpu(task, gpu):
    generator, anchors, images = task
    bad = images.to(gpu)
    bad[:, :, 3, 3] = float("nan")
    with pytest.raises(Exception, match="non-finite"):
        tune(generator.to(gpu), anchors.to(gpu), bad, load_perceptual(), replace(TUNING, landmarks=0.0))
    generator.cpu()


def test_inversion_of_a_base_without_an_encoder(task, gpu):
    generator, _, images = task
    there = generator.to(gpu)
    marks = torch.rand(len(images), 478, 3)
    found = invert(
        there,
        None,
        load_perceptual(),
        images.to(gpu),
        marks.to(gpu),
        marks[0].to(gpu),
        InvertSettings(blind_steps=2, batch=4),
    )
    generator.cpu()
    assert found.device == gpu and found.shape == (10, 16) and found.isfinite().all()
