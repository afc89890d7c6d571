"""The hybrid network: identity from the source alone, deformation 0 is no offset, and the signal of a driver."""

import pytest
import torch

from mystudio.bases import find_base
from mystudio.engines.hybrid import signals
from mystudio.engines.hybrid.network import BANK, Hybrid, ModelSettings, moved_layers
from mystudio.engines.hybrid.pyramid import Pyramid, PyramidShape
from mystudio.engines.hybrid.weights import load_weights, to_bytes, weights_of
from mystudio.errors import BadArtifact, BadCheckpoint
from mystudio.stylegan2.generator import Generator

SMALL = ModelSettings(32, PyramidShape((1, 1, 1, 1), (4, 4, 8, 8), 4), 8, 16, 8, 2, until=16)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(32, 16, 16, 2, 256, 16).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def net(generator):
    torch.manual_seed(1)
    net = Hybrid(generator, SMALL).eval().requires_grad_(False)
    net.measure(generator, 64)
    return net


def test_sizes_at_128_px():
    net = Hybrid(find_base("people128").generator)
    encoder, deformation = (sum(p.numel() for p in part.parameters()) for part in (net.encoder, net.deformation))
    assert 5.5e6 < encoder < 6.5e6 and deformation < 1.5e6
    assert net.deformation.code.weight.shape[0] == 64  # numbers a frame


def test_the_moved_layers_are_those_of_the_first_sizes(generator):
    resolutions = [block.conv1.resolution for block in generator.synthesis.blocks() for _ in block.layers()]
    assert [resolutions[k] for k in moved_layers(generator, 16)] == [4, 4, 8, 8, 8, 16, 16, 16]
    assert moved_layers(generator, 128) == list(range(len(generator.layers())))


def test_deformation_zero_is_exactly_no_offset(generator, net):
    source = net.identify(torch.randn(2, 3, 32, 32))
    code = net.deformation.read(torch.zeros(2, signals.SIZE))
    assert torch.equal(code, torch.zeros(2, 8))
    styles, alone = net.styles(generator, source, code), generator.styles(source.codes)
    assert all(torch.equal(a, b) for a, b in zip(styles.vectors, alone.vectors))


def test_the_identity_code_does_not_know_the_driver(generator, net):
    source = net.identify(torch.randn(1, 3, 32, 32))
    both = source.codes.expand(2, -1, -1), source.cells.expand(2, -1, -1)
    codes = net.deformation.read(torch.randn(2, signals.SIZE))
    offsets = net.deformation(codes, both[1])
    styles = net.deformation.moved(generator.styles(both[0]), offsets)
    moved = set(net.deformation.layers)
    for k, vector in enumerate(styles.vectors):
        assert torch.equal(vector[0], vector[1]) == (k not in moved)


def test_the_deformation_knows_the_source(net):
    cells = torch.randn(2, 64, 8)
    code = torch.randn(1, 8).expand(2, -1)
    assert all(not torch.allclose(x[0], x[1]) for x in net.deformation(code, cells))


def test_statistics_of_w_and_of_the_styles(generator, net):
    w = generator.mapping(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(net.mean, w.mean(0).expand_as(net.mean))
    last = net.deformation.layers[-1]
    expected = generator.styles(generator.broadcast(w)).vectors[last].std(0)
    assert torch.allclose(net.deformation.unit(last), expected, atol=1e-6)


def test_layers_begin_with_w0_and_leave_it_one_by_one():
    torch.manual_seed(0)
    net = Pyramid(32, 8, 5, PyramidShape((1, 1, 1, 1), (4, 4, 8, 8), 4)).eval()
    image = torch.randn(2, 3, 32, 32)
    codes = [net(image, active)[0] for active in (1, 4, None)]
    assert torch.equal(codes[0], codes[0][:, :1].expand(-1, 8, -1))
    assert torch.equal(codes[1][:, :4], codes[2][:, :4]) and torch.equal(codes[1][:, 4:], codes[0][:, 4:])
    assert not torch.allclose(codes[2][:, 7], codes[0][:, 7])


def test_a_signal_does_not_tell_the_colour_of_the_skin():
    torch.manual_seed(0)
    change, mouth, irises = torch.randn(2, 66, 3), torch.rand(2, 3, 24, 32), torch.rand(2, 2, 3, 16, 32)
    one = signals.signal(change, mouth, irises)
    other = signals.signal(change, 0.5 * mouth - 0.7, 0.5 * irises - 0.7)
    assert one.shape == (2, signals.SIZE) and torch.allclose(one, other, atol=1e-4)
    assert torch.equal(one[:, : signals.POINTS], 20 * change.flatten(1))
    plain = signals.signal(change, torch.full_like(mouth, 0.3), torch.full_like(irises, 0.3))
    assert torch.allclose(plain, signals.signal(change), atol=1e-4)
    hidden = signals.without_pixels(one, torch.tensor([True, False]))
    assert torch.equal(hidden[0], signals.signal(change)[0]) and torch.equal(hidden[1], one[1])


def test_the_bank_holds_the_last_codes(net):
    for step in range(BANK // 3 + 2):
        net.deformation.remember(torch.full((3, 8), float(step)), step)
    bank = net.deformation.bank[:, 0].tolist()
    assert sorted(set(bank)) == [float(k) for k in range(1, BANK // 3 + 2)]


def test_weights_come_back_and_others_are_refused(generator, net, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(to_bytes(net, "a" * 64))
    again = load_weights(path, generator, "a" * 64)
    assert again.settings == SMALL
    image = torch.randn(1, 3, 32, 32)
    assert torch.allclose(again.identify(image).codes, net.identify(image).codes, atol=1e-3)
    with pytest.raises(BadCheckpoint, match="another base's"):
        load_weights(path, generator, "b" * 64)
    with pytest.raises(BadCheckpoint, match="missing, damaged or other file"):
        load_weights(path, Generator(64, 16, 16, 2, 256, 16), "a" * 64)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadCheckpoint, match="missing, damaged or other file"):
        load_weights(path, generator)
    before = net.mean[0, 0].clone()
    net.mean[0, 0] = torch.nan
    path.write_bytes(to_bytes(net, "a" * 64))
    net.mean[0, 0] = before
    with pytest.raises(BadCheckpoint, match="finite"):
        load_weights(path, generator)


def test_missing_weights_are_told_in_one_sentence():
    with pytest.raises(BadArtifact, match="train them with `mystudio engines train hybrid`, or use --engine personal"):
        weights_of(find_base("people128"))
