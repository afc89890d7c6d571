"""Networks of the engine hyper: shapes, a start that equals baseline 0, offsets and losses by hand."""

import math

import pytest
import torch

from mystudio.bases import find_base
from mystudio.engines.hyper import losses
from mystudio.engines.hyper.face_nets import EXPRESSION, POSE, AppearanceNet, PoseNet, drawing
from mystudio.engines.hyper.nuisance import head, nuisance
from mystudio.engines.hyper.reenactor import Head, Reenactor, modulated, shapes_of
from mystudio.engines.hyper.settings import ModelSettings
from mystudio.engines.hyper.weights import new_networks
from mystudio.motion.retarget import reference_face
from mystudio.oneshot import data
from mystudio.stylegan2.generator import Generator
from mystudio.types import Styles
from selfscan.face.landmarks import EYE_CORNERS, IRISES, KEYPOINT_PARTS

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=256, channel_max=32).eval()
    return made.requires_grad_(False)


def count(net) -> float:
    """Millions of weights."""
    return sum(p.numel() for p in net.parameters()) / 1e6


def test_sizes_of_the_networks_for_the_packaged_base():
    nets = new_networks(ModelSettings(), find_base("people128").generator)
    assert 1.5 < count(nets.appearance) < 3 and 1.5 < count(nets.pose) < 3 and 12 < count(nets.reenactor) < 14
    assert len(nets.reenactor.blocks) == 11 and nets.reenactor.head_of[:5] == [0] * 5  # shared by the widest layers
    assert len(nets.reenactor.heads) == 7 and len(set(nets.reenactor.head_of[5:])) == 6
    assert (EXPRESSION, POSE) == (data.EXPRESSION, data.POSE)


def test_maps_and_what_is_read_off_them():
    look, pose = AppearanceNet(32, 16), PoseNet(32)
    images, motion = torch.rand(2, 3, 64, 64) * 2 - 1, 0.01 * torch.randn(2, 66, 3)
    assert look(images).shape == pose(motion).shape == (2, 32, 7, 7)
    assert torch.allclose(look.embed(images).norm(dim=1), torch.ones(2))
    read = pose.read(motion)
    assert read.expression.shape == (2, 53) and read.pose.shape == (2, 6) and read.points.shape == (2, 66, 3)


def test_a_drawing_has_a_point_where_it_is():
    motion = torch.zeros(2, 66, 3)
    motion[1, :, 2] = 0.01
    still, deep = drawing(motion)
    parts = len(KEYPOINT_PARTS)
    first = next(iter(KEYPOINT_PARTS.values()))
    x, y = (reference_face()[first[0], :2] * 56).floor().long().tolist()
    assert still.shape == (2 * parts, 56, 56) and still[0, y, x] > 0.6 and still[0, 0, 0] < 1e-4
    assert torch.equal(still[0], deep[0]) and still[1].abs().max() == 0 and deep[1].max() > 0.01


def test_an_untrained_engine_draws_baseline_0_exactly(generator):
    nets = new_networks(ModelSettings(width=32, features=8, rank=4), generator)
    w = generator.mapping(torch.randn(3, 8, generator=DRAW))
    vectors = generator.styles(generator.broadcast(w)).vectors
    features = nets.reenactor.features(torch.randn(1, 32, 7, 7), torch.randn(3, 32, 7, 7))
    deltas = nets.reenactor.deltas(features)
    assert [d is None for d in deltas] == [shape is None for shape in shapes_of(generator)]
    assert all(not d.any() for d in deltas if d is not None)
    made = generator.synthesize(Styles(vectors, deltas))
    base = torch.cat([generator.synthesize(Styles(tuple(v[k : k + 1] for v in vectors))) for k in range(3)])
    assert torch.equal(made, base)


def test_offsets_change_the_weights_of_their_pair_of_channels(generator):
    nets = Reenactor(shapes_of(generator), 32, 32, 32, 8, 4)
    features = nets.features(torch.randn(1, 32, 7, 7), torch.randn(2, 32, 7, 7))
    for one in nets.heads.values():
        torch.nn.init.normal_(one.offsets.weight, std=0.05)
    deltas = nets.deltas(features)
    ws = generator.broadcast(generator.mapping(torch.randn(2, 8, generator=DRAW)))
    made = generator.synthesize(Styles(generator.styles(ws).vectors, deltas))
    for row in range(2):
        import copy

        changed = copy.deepcopy(generator)
        for layer, delta in zip(changed.layers(), deltas):
            if delta is not None:
                layer.weight.data *= 1 + delta[row, :, :, None, None]
        assert torch.allclose(changed(ws[row : row + 1]), made[row : row + 1], atol=1e-4)


def test_a_head_by_hand():
    one = Head((3, 2), 4, 5)
    torch.nn.init.normal_(one.offsets.weight)
    torch.nn.init.normal_(one.offsets.bias)
    feature = torch.randn(1, 4, generator=DRAW)

    def leaky(x):
        return torch.where(x > 0, x, 0.2 * x)

    hidden = leaky(one.spread.weight @ leaky(feature[0]) + one.spread.bias)
    for i in range(2):
        by_hand = one.offsets.weight @ hidden[5 * i : 5 * i + 5] + one.offsets.bias
        assert torch.allclose(one(feature)[0, :, i], by_hand, atol=1e-5)


def test_modulation_is_elementwise():
    look = torch.randn(1, 2, 7, 7, generator=DRAW)
    scale, shift = torch.zeros(1, 2, 7, 7), torch.zeros(1, 2, 7, 7)
    plain = modulated(look, scale, shift)
    assert torch.allclose(plain.mean((2, 3)), torch.zeros(1, 2), atol=1e-5)
    scale[0, 1, 3, 4], shift[0, 0, 2, 2] = 1.0, 5.0
    apart = modulated(look, scale, shift) - plain
    assert apart.nonzero().tolist() == [[0, 0, 2, 2], [0, 1, 3, 4]]
    assert torch.allclose(apart[0, 1, 3, 4], plain[0, 1, 3, 4]) and apart[0, 0, 2, 2] == pytest.approx(5.0, abs=1e-5)


def test_losses_by_hand():
    assert losses.pixels(torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)).item() == 0.5
    assert losses.identity(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.4)
    face = reference_face()[None].clone()
    moved = face.clone()
    moved[:, IRISES[0][0], 0] += 0.01  # the right eye alone
    outer, inner = EYE_CORNERS[0]
    width = (face[0, outer, :2] - face[0, inner, :2]).norm()
    assert losses.gaze(moved, face).item() == pytest.approx(0.01 / float(width) / 2, rel=1e-4)
    assert losses.gaze(moved + 0.1, moved).item() == pytest.approx(0, abs=1e-5)  # of a moved face


def test_the_margin_loss_by_hand():
    people = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    seen = torch.tensor([[0.6, 0.8]])
    own, other = math.cos(math.acos(0.8) + 0.3), 0.6
    by_hand = -math.log(math.exp(4 * own) / (math.exp(4 * own) + math.exp(4 * other)))
    found = losses.margin(seen, people, torch.tensor([1]), scale=4.0, angle=0.3)
    assert found.item() == pytest.approx(by_hand, rel=1e-4)


def test_nuisance_keeps_the_face_and_takes_anothers_surroundings():
    marks = reference_face().expand(8, -1, -1)
    mask = head(marks, 64)
    centre = (reference_face()[4, :2] * 64).long().tolist()
    assert mask.shape == (8, 1, 64, 64) and mask[0, 0, centre[1], centre[0]] == 1 and mask[0, 0, 0, 0] == 0
    images = torch.linspace(-0.8, 0.8, 8)[:, None, None, None].expand(8, 3, 64, 64)
    made = nuisance(images, marks, torch.Generator().manual_seed(1))
    again = nuisance(images, marks, torch.Generator().manual_seed(1))
    assert torch.equal(made, again) and made.abs().max() <= 1
    corner = made[:, :, :4, :4].mean((1, 2, 3)) - made[:, :, centre[1] - 2 : centre[1] + 2, 30:34].mean((1, 2, 3))
    assert (corner.abs() > 0.4).sum() >= 1  # the first person's neighbour is the last one, who is brighter
