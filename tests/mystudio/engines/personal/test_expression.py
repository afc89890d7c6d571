"""Start codes with the driver's expression: exact for linear maps, the pose is kept, the scan's range is respected."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mystudio.engines.personal import start as expression
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.start import ExpressionMap
from mystudio.motion.retarget import reference_face
from selfscan.face.headpose import euler, head_pose
from selfscan.face.landmarks import LID_PAIRS


def towards(codes, wanted, known, shown, pose):
    return ExpressionMap.of(known, shown, pose).move(codes, wanted)


@pytest.fixture(scope="module")
def world():
    """Codes of a scan whose expressions and pose are linear functions of them."""
    draw = torch.Generator().manual_seed(0)
    known = torch.randn(200, 12, generator=draw)
    face, turn = torch.randn(12, 5, generator=draw), torch.randn(12, 3, generator=draw)
    return known, face, turn


def test_the_wanted_expression_is_met_and_the_pose_stays(world, monkeypatch):
    known, face, turn = world
    monkeypatch.setattr(expression, "RIDGE", 1e-4)
    codes, aim = known[:20], known[20:40] @ face
    moved = towards(codes, aim, known, known @ face, known @ turn)
    torch.testing.assert_close(moved @ face, aim, atol=0.05, rtol=0.02)
    torch.testing.assert_close(moved @ turn, codes @ turn, atol=0.05, rtol=0.02)


def test_codes_that_show_it_already_stay(world):
    known, face, turn = world
    moved = towards(known[:20], known[:20] @ face, known, known @ face, known @ turn)
    assert (moved - known[:20]).norm(dim=1).max() < 0.05


def test_the_step_is_the_shortest_one(world):
    """The map is zero along directions that change neither the expression nor the pose."""
    known, face, turn = world
    step = towards(known[:20], known[20:40] @ face, known, known @ face, known @ turn) - known[:20]
    both = torch.cat([face, turn], 1)
    inside = both @ torch.linalg.pinv(both)
    assert (step - step @ inside.t()).norm() < 0.02 * step.norm()


def test_the_scan_tells_which_codes_turn_the_head_and_open_the_eyes():
    draw = torch.Generator().manual_seed(1)
    space = AnchorSpace.of(torch.randn(80, 12, generator=draw), 12)
    turns, lids = 0.1 * space.codes[:, [4, 0, 7]].double().numpy(), space.codes[:, 2].double().numpy()
    faces = np.repeat(reference_face().double().numpy()[None], 80, 0)
    upper, lower = np.array(LID_PAIRS[0] + LID_PAIRS[1]).T
    faces[:, upper] -= 0.2 * lids[:, None, None] * (faces[:, lower] - faces[:, upper])
    marks = np.stack(
        [
            (face - face.mean(0)) @ Rotation.from_euler("xyz", turn).as_matrix().T + 0.5
            for face, turn in zip(faces, turns)
        ]
    )
    slope = expression.pose_lid_map(space, torch.as_tensor(marks, dtype=torch.float32))
    shown = euler(head_pose(marks.astype(np.float32)))
    foretold = (space.codes @ slope).numpy()
    for k, known in enumerate((*shown.T, lids)):
        assert np.corrcoef(foretold[:, k], known)[0, 1] > 0.98
    aside = [k for k in range(12) if k not in (4, 0, 7, 2)]
    assert slope[aside].abs().max() < 0.2 < slope[[4, 0, 7, 2]].norm(dim=1).min()


def test_an_expression_beyond_the_scan_is_cut_to_its_range(world):
    known, face, turn = world
    shown = known @ face
    far = towards(known[:1], shown.amax(0)[None] * 50, known, shown, known @ turn)
    edge = towards(known[:1], shown.amax(0)[None] + 0.1 * shown.std(0), known, shown, known @ turn)
    torch.testing.assert_close(far, edge)


def test_a_ridge_keeps_steps_finite_when_codes_do_not_vary(world):
    known, face, turn = world
    flat = known.clone()
    flat[:, 3:] = 0
    moved = towards(known[:5], known[5:10] @ face, flat, flat @ face, flat @ turn)
    assert np.isfinite(moved.numpy()).all()
