"""The generator against a slow reference written from the definition of StyleGAN2 (arXiv 1912.04958)."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mystudio.stylegan2 import layers
from mystudio.stylegan2.checkpoint import load_generator
from mystudio.stylegan2.generator import Generator

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
FIR = torch.outer(TAPS, TAPS) / 64


def zero_insert_filter(x, before, after):
    """Put a zero behind every pixel, pad, then convolve with the low-pass filter at gain 4."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, 2 * h, 2 * w)
    wide[:, :, ::2, ::2] = x
    wide = F.pad(wide, (before, after, before, after))
    return F.conv2d(wide, (4 * FIR).flip((0, 1)).expand(c, 1, 4, 4), groups=c)


def modulated(x, weight, style, demodulate, up=False):
    """Every sample has its own weights, in one grouped convolution."""
    n, (o, i, k, _) = len(x), weight.shape
    w = weight[None] * style[:, None, :, None, None]
    if demodulate:
        w = w / torch.sqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    if up:  # true convolution on the doubled image: the kernel is flipped for conv2d, which correlates
        x, w, padding = zero_insert_filter(x, 3, 2), w.flip((3, 4)), 0
    else:
        padding = k // 2
    y = F.conv2d(x.reshape(1, n * i, *x.shape[2:]), w.reshape(n * o, i, k, k), padding=padding, groups=n)
    return y.reshape(n, o, *y.shape[2:])


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def reference_mapping(s, z, layers):
    x = z / torch.sqrt(z.square().mean(1, keepdim=True) + 1e-8)
    for i in range(layers):
        w, b = s[f"mapping.fc{i}.weight"], s[f"mapping.fc{i}.bias"]
        x = leaky(x @ (w * 0.01 / math.sqrt(w.shape[1])).t() + b * 0.01)
    return x


def reference_images(s, ws, resolution, noise=True):
    """Return the skip image after every resolution from 4 px on; ``s``: float64 state dictionary, ws: [N, L, D]."""

    def style(name, w):
        weight = s[f"{name}.affine.weight"]
        return w @ (weight / math.sqrt(weight.shape[1])).t() + s[f"{name}.affine.bias"]

    def layer(name, x, w, up=False):
        y = modulated(x, s[f"{name}.weight"], style(name, w), True, up)
        if noise:
            y = y + s[f"{name}.noise_const"] * s[f"{name}.noise_strength"]
        return leaky(y + s[f"{name}.bias"][:, None, None])

    def rgb(name, x, w):
        gain = 1 / math.sqrt(x.shape[1])
        return modulated(x, s[f"{name}.weight"], style(name, w) * gain, False) + s[f"{name}.bias"][:, None, None]

    x = s["synthesis.b4.const"].expand(len(ws), -1, -1, -1)
    x = layer("synthesis.b4.conv1", x, ws[:, 0])
    images = [rgb("synthesis.b4.torgb", x, ws[:, 1])]
    for k, r in enumerate(2**i for i in range(3, resolution.bit_length())):
        x = layer(f"synthesis.b{r}.conv0", x, ws[:, 2 * k + 1], up=True)
        x = layer(f"synthesis.b{r}.conv1", x, ws[:, 2 * k + 2])
        images.append(zero_insert_filter(images[-1], 2, 1) + rgb(f"synthesis.b{r}.torgb", x, ws[:, 2 * k + 3]))
    return images


def random_generator(resolution, seed=0, **config):
    """Random weights with every term switched on: biases, noise, an asymmetric const."""
    torch.manual_seed(seed)
    g = Generator(
        resolution, **{"z_dim": 24, "w_dim": 32, "mapping_layers": 3, "channel_base": 1024, "channel_max": 48, **config}
    ).eval()
    for name, value in g.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            value.data += torch.randn_like(value) * (30 if "mapping" in name else 0.3)
    return g


def doubles(g):
    return {name: value.double() for name, value in g.state_dict().items()}


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@pytest.mark.parametrize("resolution", [4, 32, 64])
@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_images_equal_the_reference(resolution, noise_mode):
    g = random_generator(resolution)
    ws = torch.randn(3, g.num_ws, g.w_dim)
    with torch.no_grad():
        image = g(ws, noise_mode=noise_mode)
    expected = reference_images(doubles(g), ws.double(), resolution, noise_mode == "const")[-1]
    assert image.shape == (3, 3, resolution, resolution)
    assert relative(image, expected) < 1e-4


def test_noise_matters_in_the_parity():
    g = random_generator(32)
    ws = torch.randn(1, g.num_ws, g.w_dim)
    with torch.no_grad():
        assert relative(g(ws, noise_mode="none"), g(ws, noise_mode="const")) > 1e-2


def test_mapping_equals_the_reference():
    g = random_generator(32)
    z = torch.randn(5, g.z_dim) * 7  # the result is independent of the scale of z
    with torch.no_grad():
        w = g.mapping(z)
    assert relative(w, reference_mapping(doubles(g), z.double(), 3)) < 1e-5
    assert torch.allclose(w, g.mapping(z * 3), rtol=1e-4, atol=1e-6)


def test_truncation_moves_to_the_mean():
    g = random_generator(16)
    g.mapping.w_avg.normal_()
    z = torch.randn(2, g.z_dim)
    with torch.no_grad():
        w = g.mapping(z)
        assert torch.allclose(g.mapping(z, truncation=0.0), g.mapping.w_avg.expand(2, -1), atol=1e-6)
        assert torch.allclose(g.mapping(z, truncation=0.5), (w + g.mapping.w_avg) / 2, atol=1e-5)


def test_actor_base_equals_the_reference(shared):
    path = shared / "weights/actors128.safetensors"
    g = load_generator(path)
    stored = {name: value.double() for name, value in load_file(path).items()}
    z = torch.randn(2, g.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        w = g.mapping(z)
        image = g(g.broadcast(w))
    expected_w = reference_mapping(stored, z.double(), 4)
    expected = reference_images(stored, expected_w[:, None].expand(-1, g.num_ws, -1), 128)[-1]
    assert (w - expected_w).abs().max() < 1e-4
    assert (image - expected).abs().max() < 1e-4
    assert 0.05 < image.std() < 1  # a picture, not a flat field


def test_parameter_names_are_the_official_ones(shared):
    path = shared / "weights/actors128.safetensors"
    assert set(load_generator(path).state_dict()) == set(load_file(path))


def test_samples_do_not_see_each_other():
    g = random_generator(32)
    ws = torch.randn(4, g.num_ws, g.w_dim)
    other = ws.clone()
    other[1] = torch.randn_like(other[1]) * 50
    with torch.no_grad():
        together = g(ws)
        alone = torch.cat([g(w[None]) for w in ws])
        changed = g(other)
    assert relative(together, alone) < 1e-5
    assert relative(changed[[0, 2, 3]], together[[0, 2, 3]]) < 1e-5
    assert relative(changed[1], together[1]) > 1e-2


def test_each_w_drives_only_its_layers():
    """W of layer k must not change a skip image that ends before layer k."""
    g = random_generator(32)
    ws = torch.randn(1, g.num_ws, g.w_dim)
    with torch.no_grad():
        for k in range(g.num_ws):
            moved = ws.clone()
            moved[:, k] += 1
            for i, r in enumerate((4, 8, 16, 32)):
                same = torch.equal(g(moved, resolution=r), g(ws, resolution=r))
                assert same == (k > 2 * i + 1), (k, r)


def test_early_resolution_is_the_skip_image():
    g = random_generator(32)
    ws = torch.randn(2, g.num_ws, g.w_dim)
    expected = reference_images(doubles(g), ws.double(), 32)
    with torch.no_grad():
        for i, r in enumerate((4, 8, 16, 32)):
            assert relative(g(ws, resolution=r), expected[i]) < 1e-4


def test_stylespace_is_on_the_way():
    g = random_generator(32)
    ws = torch.randn(2, g.num_ws, g.w_dim)
    with torch.no_grad():
        assert torch.equal(g.synthesize(g.styles(ws)), g(ws))


def test_random_noise_follows_its_generator():
    g = random_generator(16)
    ws = torch.randn(1, g.num_ws, g.w_dim)

    def draw(seed):
        return g(ws, noise_mode="random", generator=torch.Generator().manual_seed(seed))

    with torch.no_grad():
        assert torch.equal(draw(3), draw(3))
        assert not torch.equal(draw(3), draw(4))


def test_gradients_are_the_derivative():
    g = random_generator(8, z_dim=4, w_dim=4, channel_base=32, channel_max=4).double()
    ws = torch.randn(1, g.num_ws, g.w_dim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: g(w), (ws,), atol=1e-6)


@pytest.mark.parametrize("offset", [(1, 2, 1, 1), (1, 2, 2, 2), (3, 2, 2, 2)])
def test_what_is_differentiated_by_hand_is_right_twice(offset):
    """Without noise, with constant and with random noise; path lengths differentiate twice."""
    x, scale, offset = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2, 2, 2), (3, 2, 1, 1), offset)
    )
    assert torch.autograd.gradcheck(layers._ScaledAndShifted.apply, (x, scale, offset))
    assert torch.autograd.gradgradcheck(layers._ScaledAndShifted.apply, (x, scale, offset))


def test_a_batch_of_rounded_maps_is_summed_in_float32():
    rounded = torch.rand(300, 2, 3, 3).bfloat16()
    exact = rounded.double().sum(0, keepdim=True)
    assert ((layers._batch_sum(rounded).double() - exact).abs() / exact).max() < 2**-8


def test_every_parameter_gets_a_gradient():
    g = random_generator(16)
    z = torch.randn(2, g.z_dim)
    g(g.broadcast(g.mapping(z))).square().mean().backward()
    without = [name for name, value in g.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("resolution", [0, 2, 3, 48, -64])
def test_odd_resolutions_are_refused(resolution):
    with pytest.raises(ValueError, match="power of two"):
        Generator(resolution)


def with_weights(net: Generator, deltas, row: int) -> Generator:
    """A copy of a generator whose own weights are W (1 + delta) of one image's deltas."""
    copied = copy.deepcopy(net)
    for layer, delta in zip(copied.layers(), deltas):
        if delta is not None:
            layer.weight.data *= 1 + delta[min(row, len(delta) - 1)][..., None, None]
    return copied


@pytest.mark.parametrize("rows", [1, 3], ids=["one delta for all", "a delta for each image"])
def test_weight_deltas_are_weights_of_each_image_its_own(rows):
    draw = torch.Generator().manual_seed(5)
    net = Generator(32, 16, 16, 2, 256, 16).eval()
    ws = torch.randn(3, net.num_ws, 16, generator=draw)
    deltas = tuple(
        None if k % 3 == 1 else 0.3 * torch.randn(rows, *layer.weight.shape[:2], generator=draw)
        for k, layer in enumerate(net.layers())
    )
    with torch.no_grad():
        found = net.synthesize(replace(net.styles(ws), weight_deltas=deltas))
        expected = torch.cat([with_weights(net, deltas, k)(ws[k : k + 1]) for k in range(3)])
        assert (found - expected).abs().max() < 1e-4
        assert (found - net(ws)).abs().max() > 0.01


def test_weight_deltas_have_gradients_and_must_fit_the_layers():
    net = Generator(8, 4, 4, 1, 32, 4)
    styles = net.styles(torch.randn(2, net.num_ws, 4))
    deltas = tuple(torch.zeros(2, *layer.weight.shape[:2], requires_grad=True) for layer in net.layers())
    net.synthesize(replace(styles, weight_deltas=deltas)).square().sum().backward()
    assert all(delta.grad is not None and bool(delta.grad.abs().sum() > 0) for delta in deltas)
    with pytest.raises(ValueError, match="for each of"):
        replace(styles, weight_deltas=deltas[:-1])
