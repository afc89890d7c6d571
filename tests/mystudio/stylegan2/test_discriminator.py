"""The discriminator against the published architecture, written out plainly."""

import math

import pytest
import torch
import torch.nn.functional as F

from mystudio.stylegan2.discriminator import Discriminator, with_minibatch_deviation

FIR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def _filtered(x, pad):
    return F.conv2d(F.pad(x, (pad,) * 4), FIR.to(x).flip((0, 1)).expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def _plain_conv(state, name, x, kernel, down=False, act=True, gain=1.0):
    """Filter, subsample, convolve, add the bias, activate, multiply: one after the other, as published."""
    weight = state[f"{name}.weight"]
    weight = weight / math.sqrt(weight[0].numel())
    if down and kernel == 1:
        x = _filtered(x, 1)[:, :, ::2, ::2]
    if down and kernel == 3:
        x = F.conv2d(_filtered(x, 2), weight)[:, :, ::2, ::2]
    else:
        x = F.conv2d(x, weight, padding=kernel // 2)
    if f"{name}.bias" in state:
        x = x + state[f"{name}.bias"][:, None, None]
    return (F.leaky_relu(x, 0.2) * math.sqrt(2) if act else x) * gain


def _plain(state, x, resolution, group=4):
    x = _plain_conv(state, f"b{resolution}.fromrgb", x, 1)
    while resolution > 4:
        skip = _plain_conv(state, f"b{resolution}.skip", x, 1, True, False, math.sqrt(0.5))
        x = _plain_conv(state, f"b{resolution}.conv0", x, 3)
        x = skip + _plain_conv(state, f"b{resolution}.conv1", x, 3, True, True, math.sqrt(0.5))
        resolution //= 2
    n, _, h, w = x.shape
    extra = torch.zeros(n, 1, h, w, dtype=x.dtype)
    groups = n // group
    for k in range(groups):
        members = x[k::groups]
        extra[k::groups] = (members.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = _plain_conv(state, "b4.conv", torch.cat([x, extra], 1), 3).flatten(1)
    x = F.linear(x, state["b4.fc.weight"] / math.sqrt(x.shape[1]), state["b4.fc.bias"])
    x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    return F.linear(x, state["b4.out.weight"] / math.sqrt(x.shape[1]), state["b4.out.bias"])[:, 0]


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    d = Discriminator(32, channel_base=256, channel_max=32)
    with torch.no_grad():
        for name, p in d.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    return d.double()


def test_equals_the_published_architecture(tiny):
    x = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    expected = _plain(tiny.state_dict(), x, 32)
    assert torch.allclose(tiny(x), expected, atol=1e-6 * expected.abs().max())  # the FIR taps are float32
    assert expected.std() > 0.01


def test_names_and_shapes_are_the_official_ones():
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Discriminator(256, channel_base=16384).state_dict().items()}
    learned = {k: v for k, v in shapes.items() if not k.endswith("resample_filter")}
    for r, width, below in (
        (256, 64, 128),
        (128, 128, 256),
        (64, 256, 512),
        (32, 512, 512),
        (16, 512, 512),
        (8, 512, 512),
    ):
        assert learned.pop(f"b{r}.conv0.weight") == (width, width, 3, 3)
        assert learned.pop(f"b{r}.conv1.weight") == (below, width, 3, 3)
        assert learned.pop(f"b{r}.skip.weight") == (below, width, 1, 1)
        assert learned.pop(f"b{r}.conv0.bias") == (width,) and learned.pop(f"b{r}.conv1.bias") == (below,)
    assert learned == {
        "b256.fromrgb.weight": (64, 3, 1, 1),
        "b256.fromrgb.bias": (64,),
        "b4.conv.weight": (512, 513, 3, 3),
        "b4.conv.bias": (512,),
        "b4.fc.weight": (512, 8192),
        "b4.fc.bias": (512,),
        "b4.out.weight": (1, 512),
        "b4.out.bias": (1,),
    }


def test_minibatch_deviation_is_zero_for_equal_images_and_keeps_groups_of_strided_shares():
    x = torch.randn(8, 3, 4, 4)
    whole = with_minibatch_deviation(x, 4)
    for rank in (0, 1):
        assert torch.equal(with_minibatch_deviation(x[rank::2], 4), whole[rank::2])
    assert with_minibatch_deviation(x[:1].expand(4, -1, -1, -1), 4)[:, 3].abs().max() < 1.1e-4
    assert with_minibatch_deviation(torch.randn(6, 2, 4, 4), 4).shape == (6, 3, 4, 4)  # groups of three


def test_can_be_differentiated_twice(tiny):
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)

    def penalty(images):
        (g,) = torch.autograd.grad(tiny(images).sum(), images, create_graph=True)
        return g.square().sum()

    (slope,) = torch.autograd.grad(penalty(x), x)
    step = 1e-5
    with torch.enable_grad():
        numeric = (penalty(x + step * direction) - penalty(x - step * direction)) / (2 * step)
    assert torch.isclose((slope * direction).sum(), numeric, rtol=1e-3)


def test_bfloat16_maps_change_little():
    torch.manual_seed(1)
    d, x = Discriminator(32, channel_base=512, channel_max=32), torch.randn(16, 3, 32, 32)
    exact, rough = d(x), d(x, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().mean() < 0.05 * exact.std() + 0.01


def test_refuses_odd_sizes():
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(48)
