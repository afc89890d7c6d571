"""The avatar's two small networks, and the samples they learn from."""

import actor_avatar
import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio.compute.compilation import drawer
from mystudio.engines.personal import regress
from mystudio.engines.personal.measure import measure, output_vector
from mystudio.engines.personal.regress import Regressor, RegressSettings, Samples, sample_codes, train_regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import state_of
from mystudio.motion.retarget import RetargetSettings, relative_motion
from selfscan.face.facemesh import load_facemesh
from selfscan.face.headpose import canonical_head


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def space() -> AnchorSpace:
    return AnchorSpace.of(draw(14, 6), 4)


def random_network(seed: int = 0) -> Regressor:
    torch.manual_seed(seed)
    net = Regressor(198, 4, 30)
    for name in ("motion", "code", "output"):
        getattr(net, f"{name}_mean").normal_()
        getattr(net, f"{name}_scale").uniform_(0.5, 2.0)
    return net


def test_jacobian_is_the_derivative_of_the_prediction():
    net, codes = random_network().double(), draw(3, 4).double()
    expected = torch.stack([torch.autograd.functional.jacobian(lambda c: net.predict(c[None])[0], c) for c in codes])
    assert torch.allclose(net.jacobian(codes), expected, atol=1e-10)


def test_a_network_survives_its_state():
    net = random_network()
    again = Regressor.load(net.state_dict())
    codes, motion = draw(5, 4), draw(5, 66, 3)
    assert torch.equal(again.predict(codes), net.predict(codes)) and torch.equal(again.code(motion), net.code(motion))
    assert not any(p.requires_grad for p in again.parameters())


def test_absurd_motion_gives_codes_like_those_of_training():
    net = random_network()
    wild = net.code(1e6 * draw(4, 66, 3))
    assert wild.isfinite().all()
    assert torch.equal(wild, net.code(1e9 * draw(4, 66, 3)))  # clamped


def test_codes_are_drawn_in_and_a_little_around_the_hull(space):
    settings = RegressSettings(samples=300, reach=1.3, noise=0.0)
    codes = sample_codes(space, settings)
    assert codes.shape == (300, 4)
    assert space.outside(codes, 1.3).max() < 1e-3
    assert space.outside(codes, 1.0).max() > 0.05
    noisy = sample_codes(space, RegressSettings(samples=300, reach=1.3, noise=0.2)) - codes
    assert float(noisy.std()) == pytest.approx(0.2, rel=0.1)


def test_drawn_codes_depend_on_the_seed_alone(space):
    settings = RegressSettings(samples=20)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = sample_codes(space, settings)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random state is unchanged
    torch.manual_seed(2)
    assert torch.equal(sample_codes(space, settings), first)
    assert not torch.equal(sample_codes(space, RegressSettings(samples=20, seed=1)), first)


def linear_samples(space: AnchorSpace, count: int = 300) -> tuple[Samples, torch.Tensor, torch.Tensor]:
    """Return samples whose landmarks and outputs are linear in the code; the anchors' samples come last."""
    neutral = torch.as_tensor(0.33 * canonical_head() + (0.5, 0.48, 0)).float()
    codes = torch.cat([draw(count, space.rank, seed=2), space.codes])
    marks = neutral + 0.004 * (codes @ draw(space.rank, 478 * 3, seed=3)).unflatten(1, (478, 3))
    samples = Samples(codes, marks, codes @ draw(space.rank, 240, seed=4))
    return samples, marks[-len(space.codes) :], neutral


def test_networks_learn_what_can_be_learned(space):
    samples, scan_marks, neutral = linear_samples(space)
    net, figures = train_regressor(samples, space, scan_marks, neutral, RegressSettings(steps=300))
    assert figures["output_explained"] > 0.99 and figures["code_explained"] > 0.9
    fresh = draw(50, space.rank, seed=9)
    marks = neutral + 0.004 * (fresh @ draw(space.rank, 478 * 3, seed=3)).unflatten(1, (478, 3))
    error = (net.code(relative_motion(marks, neutral)) - fresh).square().mean()
    assert error < 0.15 * fresh.square().mean()
    slope = net.jacobian(torch.zeros(1, space.rank))[0].t()
    assert (slope - draw(space.rank, 240, seed=4)).norm() < 0.2 * draw(space.rank, 240, seed=4).norm()


def test_training_depends_on_the_seed_alone(space):
    samples, scan_marks, neutral = linear_samples(space, 40)
    nets = []
    for k in range(2):
        torch.manual_seed(k)
        nets.append(train_regressor(samples, space, scan_marks, neutral, RegressSettings(steps=3))[0].state_dict())
    assert all(torch.equal(nets[0][k], nets[1][k]) for k in nets[0])


def test_samples_are_what_the_solver_will_measure():
    avatar = actor_avatar.avatar()
    space, mesh = state_of(avatar).space, load_facemesh()
    codes = space.codes[:3]  # one batch: bfloat16 rounds batches of another size differently
    marks, outputs, presence = regress.draw_and_measure(avatar.generator, mesh, space, codes)
    images = drawer(avatar.generator, torch.device("cpu"))(avatar.generator.broadcast(space.decode(codes)))
    seen = measure(mesh, images.clamp(-1, 1), RetargetSettings())
    assert torch.allclose(marks, seen.landmarks, atol=1e-4)
    assert torch.allclose(outputs, output_vector(seen.landmarks, seen.mouth, seen.irises), atol=1e-3)
    assert presence.min() > 0.5


def test_samples_that_were_kept_are_not_drawn_again(monkeypatch):
    monkeypatch.setattr("selfscan.checkpoints.CHUNK", 4)
    avatar, kept, drawn = actor_avatar.avatar(), MemoryCheckpoints(), []
    space, mesh = state_of(avatar).space, load_facemesh()

    def look():
        hook = avatar.generator.register_forward_pre_hook(lambda net, given: drawn.append(len(given[0])))
        try:
            return regress.draw_and_measure(avatar.generator, mesh, space, space.codes[:6], batch=2, checkpoints=kept)
        finally:
            hook.remove()

    whole = look()
    assert drawn == [2, 2, 2] and list(kept) == ["samples0000000", "samples0000004"]
    del kept["samples0000004"]
    assert all(map(torch.equal, look(), whole)) and drawn == [2, 2, 2, 2]


def test_the_avatars_networks_know_its_samples():
    info = actor_avatar.avatar().info
    assert info["output_explained"] > 0.9 and info["code_explained"] > 0.3
    assert np.isfinite([info["code_loss"], info["output_loss"]]).all()
