"""The program that makes a base follow lids and brows: its measures and the mapping network that it teaches."""

import importlib.util
from pathlib import Path

import pytest
import torch

from mystudio.actors.factors import NAMES
from mystudio.motion.losses import BROW_SPREAD, LID_SPREAD
from mystudio.stylegan2.generator import Generator
from selfscan.face.landmarks import BROWS, EYE_CORNERS, LID_PAIRS

FILE = Path(__file__).parents[3] / "recipes" / "make_base_motion.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("make_base_motion", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def old():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(8, 64, 64, 3, 64, 8).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def moves(program):
    rng = torch.Generator().manual_seed(1)
    return {name: 0.5 * torch.randn(64, generator=rng) for name in program.MOVES}


def test_thresholds_are_those_of_the_actors(program):
    from mystudio.actors.factors import MOTION, N_FACTORS
    from mystudio.actors.motion import frame_from_factors

    for name, threshold in program.MOVES.items():
        weights = []
        for value in (threshold, threshold + 0.1, threshold + program.FULL, threshold + 2):
            code = torch.zeros(N_FACTORS).numpy()
            code[NAMES.index(name)] = value
            weights.append(frame_from_factors(code[MOTION])[0].sum())
        assert weights[0] < 1e-6 < weights[1] < weights[2] == pytest.approx(weights[3])


def test_a_movement_begins_at_its_threshold_and_ends_where_it_is_whole(program, old, moves):
    z = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    column, threshold = NAMES.index("eyeBlink"), program.MOVES["eyeBlink"]
    z[:, [NAMES.index(name) for name in moves]] = -2.0
    rest = program.aims(old, z, moves)
    assert torch.allclose(rest, old.mapping(z * (z != -2.0)), atol=1e-5)
    for value, share in ((threshold, 0.0), (threshold + 0.65, 0.5), (threshold + 1.3, 1.0), (threshold + 3, 1.0)):
        z[:, column] = value
        assert torch.allclose(program.aims(old, z, moves) - rest, share * moves["eyeBlink"].expand(4, -1), atol=1e-4)


def test_the_mapping_network_learns_the_movements_and_the_synthesis_stays(program, old, moves, monkeypatch):
    monkeypatch.setattr(program, "MAPPING_STEPS", 300)
    new = program.teach(old, moves)
    z = program.latents(400, 64, torch.Generator().manual_seed(3))
    aim = program.aims(old, z, moves)

    def error(net):
        return float((net.mapping(z) - aim).square().mean())

    assert error(new) < 0.8 * error(old)  # 0.63 here; a network of 64 numbers cannot do much better in 300 steps
    assert all(torch.equal(v, old.synthesis.state_dict()[k]) for k, v in new.synthesis.state_dict().items())
    mean = new.mapping(torch.randn(10000, 64, generator=torch.Generator().manual_seed(4))).mean(0)
    assert torch.allclose(new.mapping.w_avg, mean, atol=0.1)


def test_changes_are_in_deviations_among_actors(program):
    before = torch.zeros(2, 478, 3)
    for corners, centre in zip(EYE_CORNERS, (-3.0, 3.0)):
        before[:, list(corners), 0] = torch.tensor([centre - 1, centre + 1])  # eyes 2 wide, 6 apart
    after = before.clone()
    after[0, [upper for upper, _ in LID_PAIRS[0]], 1] += 0.2
    after[1, list(BROWS), 1] -= 0.6
    found = program.change(after, before)
    assert found.shape == (2, 16, 2)
    expected = torch.zeros(2, 16, 2)
    expected[0, :3, 1], expected[1, 6:, 1] = 0.1 / LID_SPREAD, -0.1 / BROW_SPREAD
    assert torch.allclose(found, expected, atol=1e-5)
