"""The training's formulas against closed forms; growth; the random numbers of a step."""

import math

import pytest
import torch
import torch.nn.functional as F
from base_runs import CODE, tiny

from mystudio.base import objectives, randomness
from mystudio.base.parallel import Team
from mystudio.base.randomness import StepRandom
from mystudio.base.settings import ModelSettings, SupervisedSettings
from mystudio.base.shape import half_bytes, synthesis_macs
from mystudio.base.train_encoder import one_look
from mystudio.errors import BadCheckpoint
from mystudio.motion import losses
from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.growth import cut, grown, start_from
from mystudio.stylegan2.layers import fir_kernel, upsample_image


def test_losses_are_the_papers():
    logits = torch.linspace(-3, 3, 7)
    assert torch.allclose(objectives.generator_loss(logits), -torch.sigmoid(logits).log(), atol=1e-6)
    both = objectives.discriminator_loss(logits, logits.flip(0))
    assert torch.allclose(both, -torch.sigmoid(logits).log() - (1 - torch.sigmoid(logits.flip(0))).log(), atol=1e-5)


def test_gradient_penalty_of_a_quadratic_is_known():
    a = torch.randn(3, 4, 4, dtype=torch.float64)
    b = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    penalty = objectives.gradient_penalty(lambda x: (a * x + b / 2 * x.square()).sum((1, 2, 3)), images)
    assert torch.allclose(penalty, (a + b * images).square().sum((1, 2, 3)))
    (slope,) = torch.autograd.grad(penalty.sum(), b)
    assert torch.isclose(slope, (2 * (a + b * images) * images).sum())


def test_path_length_of_a_linear_generator_is_known():
    n, layers, dims, size = 4, 3, 5, 8
    matrix = torch.randn(layers, dims, 3 * size * size, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(n, layers, dims, dtype=torch.float64, requires_grad=True)
    images = torch.einsum("nld,ldp->np", ws, matrix).view(n, 3, size, size)
    noise = torch.randn_like(images)
    lengths = objectives.path_lengths(images, ws, noise)
    back = torch.einsum("ldp,np->nld", matrix, noise.flatten(1) / size)
    assert torch.allclose(lengths, back.square().sum(2).mean(1).sqrt())
    assert torch.autograd.grad(lengths.sum(), matrix)[0].abs().max() > 0


def test_multiscale_difference():
    made, aim = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    expected = sum((F.avg_pool2d(made, k) - F.avg_pool2d(aim, k)).abs().mean((1, 2, 3)) for k in (1, 2, 4))
    assert torch.allclose(objectives.multiscale(made, aim, 3), expected, atol=1e-6)
    assert torch.equal(objectives.multiscale(made, made, 3), torch.zeros(2))


def test_a_change_within_a_pair_does_not_count_what_both_images_miss():
    settings = SupervisedSettings(levels=1, landmarks=2.0, lids=3.0)
    draw = torch.Generator().manual_seed(0)
    aim, look = torch.rand(4, 3, 64, 64, generator=draw), torch.rand(2, 3, 64, 64, generator=draw)
    there, face = torch.rand(4, 478, 3, generator=draw), torch.rand(2, 478, 3, generator=draw)
    pairs = torch.tensor([[0, 2], [3, 1]])
    both = torch.tensor([0, 1, 0, 1])  # row -> pair
    missed = objectives.change(aim + look[both], aim, pairs, settings, (there + 0.1 * face[both], there))
    assert missed.shape == (2,) and missed.max() < 1e-4
    made = aim.clone()
    made[0] += 0.25  # the motion of one image of one pair
    changed = objectives.change(made, aim, pairs, settings)
    assert torch.allclose(changed, torch.tensor([3 * 0.25, 0.0]), atol=1e-6)  # the whole, the face and the eyes
    moved = there.clone()
    moved[3] += 0.05 * torch.rand(478, 3, generator=draw)
    faces = objectives.change(aim, aim, pairs, settings, (moved, there))
    expected = 2 * losses.landmarks(moved[3:], there[3:]) + 3 * losses.lids_and_brows(moved[3:], there[3:])
    assert faces[0] < 1e-4 and torch.allclose(faces[1], expected[0], rtol=1e-4)


def shaken_generator() -> Generator:
    """Return a small generator with random weights, because many weights are zero at the start."""
    torch.manual_seed(0)
    small = Generator(16, 8, 8, 2, 64, 16)
    with torch.no_grad():
        for p in small.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return small


def test_growing_shows_the_upsampled_image_at_first_and_can_learn():
    small = shaken_generator()
    large = Generator(32, 8, 8, 2, 64, 16)
    assert start_from(large, small) == len(small.state_dict())
    w = small.mapping(torch.randn(3, 8))
    old, new = small(small.broadcast(w)), large(large.broadcast(w))
    assert torch.allclose(new, upsample_image(old, fir_kernel()), atol=1e-5)
    new.square().mean().backward()
    assert large.synthesis.b32.torgb.weight.grad.abs().max() > 0
    with pytest.raises(BadCheckpoint, match="at most 16 px"):
        start_from(small, large)
    with pytest.raises(BadCheckpoint, match="channel_base"):
        start_from(Generator(32, 8, 8, 2, 32, 16), small)


def test_a_wider_generator_starts_with_the_same_image_and_uses_what_is_new():
    small = shaken_generator()
    wide = Generator(16, 8, 8, 2, 96, 24)
    start_from(wide, small)
    w = small.mapping(torch.randn(3, 8))
    assert torch.allclose(wide(wide.broadcast(w)), small(small.broadcast(w)), atol=1e-5)
    wide(wide.broadcast(w)).square().mean().backward()
    assert wide.synthesis.b16.conv1.weight.grad[:4, 4:].abs().max() > 0  # old layers get gradients from the new ones


def test_a_generator_is_grown_where_it_is_too_small_and_always_to_the_same_weights():
    small = Generator(16, 8, 8, 2, 64, 16)
    assert grown(small, 16, 64) is small and grown(small, 8, 32) is small
    first, again = grown(small, 32, 128), grown(small, 32, 128)
    assert first.resolution == 32 and first.config["channel_base"] == 128
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_a_larger_z_starts_without_effect():
    torch.manual_seed(0)
    small, large = Generator(8, 8, 8, 2, 64, 8), Generator(8, 16, 8, 2, 64, 8)
    start_from(large, small)
    z = torch.randn(6, 8)
    z = z / z.square().mean(1, keepdim=True).sqrt()
    extra = torch.randn(6, 8)
    extra = extra / extra.square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(large.mapping(torch.cat([z, extra], 1)), small.mapping(z), atol=1e-6)


def test_work_is_counted_as_by_hand():
    g = Generator(8, 6, 6, 2, channel_base=32, channel_max=4)  # 4 channels at 4 px and at 8 px
    by_hand = 9 * 4 * 4 * 16 + 3 * 4 * 16 + 9 * 4 * 4 * 16 + 9 * 4 * 4 * 64 + 3 * 4 * 64 + 5 * 4 * 6
    assert synthesis_macs(g) == by_hand
    with torch.device("meta"):
        m = ModelSettings()
        default = Generator(m.resolution, m.z_dim, m.w_dim, m.mapping_layers, m.channel_base, m.channel_max)
    assert synthesis_macs(default) < 8e9 and half_bytes(default) < 30e6


def _chance(team=Team(), phase="adversarial", step=5, share=0.25):
    made = StepRandom(tiny(), 6, torch.device("cpu"), team, CODE, share)
    made.begin(step, phase)
    return made


def test_processes_share_one_draw():
    whole = _chance()
    for rank in (0, 1):
        part = _chance(Team(rank, 2))
        assert torch.equal(part.latents(randomness.G), whole.latents(randomness.G)[rank::2])
        assert torch.equal(part.augmentation(randomness.R1), whole.augmentation(randomness.R1)[rank::2])
        codes = torch.randn(8, CODE)
        assert torch.equal(part.with_codes(codes[rank::2]), whole.with_codes(codes)[rank::2])
    assert not torch.equal(whole.latents(randomness.G), whole.latents(randomness.D))
    assert not torch.equal(whole.latents(randomness.G), _chance(step=6).latents(randomness.G))


def test_the_last_number_of_z_tells_the_two_kinds_of_images():
    z = torch.cat([_chance(step=k).latents(randomness.G) for k in range(500)])
    assert abs((z[:, -1] > 0).float().mean() - 0.25) < 0.03
    assert (_chance().with_codes(torch.randn(8, CODE))[:, -1] > 0).all()
    alone = torch.cat([_chance(step=k, share=1.0).latents(randomness.G) for k in range(500)])
    assert abs(alone[:, -1].mean()) < 0.06 and abs(alone.std() - 1) < 0.03


def test_mixing_takes_a_tail_of_layers_from_another_sample():
    w = torch.arange(8.0)[:, None].expand(-1, 3)
    ws = torch.cat([_chance(step=k).mixed(w) for k in range(100)])[..., 0]
    own = torch.arange(8.0).repeat(100)
    assert torch.equal(ws[:, 0], own)
    assert (ws[:, 1:] - ws[:, :-1] != 0).sum(1).max() == 1
    assert abs((ws[:, -1] != own).float().mean() - 0.5) < 0.06
    assert math.isclose(float((ws[:, -1][ws[:, -1] != own] - (own[ws[:, -1] != own] - 1) % 8).abs().max()), 0)


def test_samples_of_one_look_share_all_but_their_motion():
    z = torch.randn(3, 4, 8)
    kept = one_look(z, 2, 3)
    assert torch.equal(kept[:, 1:, 2:5], z[:, 1:, 2:5]) and not kept[:, 0, 2:5].any()
    assert torch.equal(kept[:, :, :2], z[:, :1, :2].expand(-1, 4, -1))
    assert torch.equal(kept[:, :, 5:], z[:, :1, 5:].expand(-1, 4, -1))
    assert torch.equal(one_look(z, 2)[:, 1:, 2:], z[:, 1:, 2:])
    both = one_look(z, 2, 2, (5, 6))
    assert torch.equal(both[:, 1:, [2, 3, 5]], z[:, 1:, [2, 3, 5]]) and not both[:, 0, [2, 3, 5]].any()
    assert torch.equal(both[:, :, [0, 1, 4]], z[:, :1, [0, 1, 4]].expand(-1, z.shape[1], -1))


def test_a_generator_that_is_cut_draws_what_it_drew_up_to_this_size():
    torch.manual_seed(3)
    large = Generator(64, 8, 8, 2, 512, 16)
    small, w = cut(large, 16), torch.randn(2, 8)
    assert small.resolution == 16 and len(small.state_dict()) < len(large.state_dict())
    expected = large(large.broadcast(w), resolution=16)
    assert torch.allclose(small(small.broadcast(w)), expected, atol=1e-5)
    assert cut(large, 64) is large
