"""Edits in their own unit: the least offset by its definition, paths, and what edited pictures show."""

from dataclasses import replace

import actor_avatar
import numpy as np
import pytest
import torch

from mystudio import editing, engines
from mystudio.engines.personal.identity import Identity
from mystudio.engines.personal.state import AXES, EDIT, state_of
from mystudio.engines.personal.steps import FRAMES, TURNS, Look, Steps, frames_of, least_offset, offered
from mystudio.evaluation import effects
from mystudio.motion.attributes import CHANNELS, EDITS, aim, along
from mystudio.types import Edit, Take
from selfscan.face.facemesh import load_facemesh


@pytest.fixture(scope="module")
def avatar():
    return actor_avatar.avatar()


@pytest.fixture(scope="module")
def still(avatar) -> Take:
    codes = engines.editing(avatar).neutral_codes(avatar)[AXES].expand(5, -1, -1)
    return Take({AXES: codes}, np.zeros(5, np.uint8), np.arange(5) / 25, {})


def test_the_jacobian_is_that_of_small_changes(avatar):
    state = state_of(avatar)
    look = Look(avatar.generator, load_facemesh(), state.space.decode(state.space.codes[:2]))
    way = state.space.axes[0] / state.space.axes[0].norm()
    slope = look.jacobian() @ way
    small = (look.channels(0.1 * way) - look.channels(-0.1 * way)) / 0.2
    assert torch.nn.functional.cosine_similarity(slope, small, 1).min() > 0.8  # the network is rough at small scale
    assert torch.allclose(slope.norm(dim=1), small.norm(dim=1), rtol=0.25)


def test_the_least_offset_is_the_minimum_of_its_objective():
    draw = torch.Generator().manual_seed(0)
    jacobian = torch.randn(3, 4, 9, generator=draw, dtype=torch.float64)
    change, at = torch.randn(3, 4, generator=draw).double(), torch.randn(9, generator=draw).double()
    z = least_offset(jacobian, change, at, ridge=0.3).requires_grad_(True)
    missing = jacobian @ (z - at) - change
    objective = missing.square().sum() / 3 + 0.3 * z.square().sum()
    assert torch.autograd.grad(objective, z)[0].abs().max() < 1e-9


def test_without_a_ridge_one_channel_moves_and_no_other():
    jacobian = torch.randn(1, 13, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = aim("brows").double()
    z = least_offset(jacobian, wanted[None], torch.zeros(40).double(), ridge=1e-12)
    assert torch.allclose(jacobian[0] @ z, wanted, atol=1e-6)
    kernel = torch.linalg.svd(jacobian[0])[2][13:]
    assert (kernel @ z).abs().max() < 1e-6  # nothing of it is without effect: it is the shortest


def test_a_path_is_linear_between_its_points_and_ends_with_them():
    path = Steps(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([[-3.0], [0.0], [8.0]]))
    found = path.at(torch.tensor([-9.0, -0.5, 0.0, 1.0, 2.0, 5.0], dtype=torch.float64))
    assert found[:, 0].tolist() == [-3.0, -1.5, 0.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize(
    "name, low, high, expected",
    [
        ("smile", -0.3, 1.2, True),
        ("pitch", -1.2, 0.4, True),
        ("mouth_width", -0.6, 0.7, False),
        ("wink_left", -1.5, 0.5, False),  # an eye that only opens wider is no wink
        ("wink_left", 0.0, 1.4, True),
        ("frown", -2.0, 0.3, False),
    ],
)
def test_an_edit_of_less_than_a_unit_is_not_offered(name, low, high, expected):
    path = Steps(torch.tensor([low, high]), torch.zeros(2, 1))
    assert offered(name, path) is expected


def test_an_edit_keeps_the_person_and_another_person_is_found_out(avatar):
    state = state_of(avatar)
    first = state.space.decode(engines.editing(avatar).neutral_codes(avatar)[AXES][:, 0])
    look = Look(avatar.generator, load_facemesh(), first)
    same = Identity(*look.picture())
    assert same.kept(*look.picture())
    images, marks = actor_avatar.person(actor_avatar.motions(1, 0), look=6)
    assert not same.kept(images, marks)
    for name, steps in state.steps.items():
        for end in (0, -1):
            assert same.kept(*look.picture(steps.offsets[end]), name in TURNS), name


def test_strength_1_is_one_unit_on_the_picture(avatar):
    state, engine = state_of(avatar), engines.editing(avatar)
    first = state.space.codes.sub(engine.neutral_codes(avatar)[AXES][0, 0]).norm(dim=1).argmin()
    frames = frames_of(state.space, int(first), FRAMES)
    look, checked = Look(avatar.generator, load_facemesh(), state.space.decode(frames)), 0
    for name, reach in engine.edits(avatar).items():
        for strength in (-1.0, 1.0):
            if reach.low <= strength <= reach.high:
                offset = state.steps[name].at(torch.tensor([strength]))[0]
                moved = (look.channels(offset) - look.before).mean(0)[: len(CHANNELS)]
                assert float(along(moved, name)) == pytest.approx(strength, abs=0.15), name
                checked += 1
    assert checked >= 6


def test_effects_are_measured_for_every_edit(avatar):
    found = {one.name: one for one in effects.measure(avatar, strengths=(0.0, 1.0))}
    assert set(found) == set(engines.edits(avatar)) <= set(EDITS)
    assert not found["smile"].amount[0] and found["smile"].amount[1] > 0.5
    assert set(effects.matrix(list(found.values()), 1.0)["smile"]) == set(CHANNELS)


def test_beyond_its_end_an_edit_stays_at_its_end(avatar, still):
    engine, name = engines.of(avatar), "smile"
    end = engines.edits(avatar)[name].high
    far = editing.apply(avatar, still, [Edit(name, end + 5)])
    there = editing.apply(avatar, still, [Edit(name, end)])
    for a, b in zip(engine.decode(avatar, far).vectors, engine.decode(avatar, there).vectors):
        assert torch.equal(a, b)


def test_strengths_are_stored_and_add_up(avatar, still):
    keys = ((0.0, 0.0), (0.16, 0.8))
    once = editing.apply(avatar, still, [Edit("yaw", keys=keys)])
    assert torch.equal(once.codes[AXES], still.codes[AXES])
    assert once.codes[EDIT + "yaw"].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    twice = editing.apply(avatar, once, [Edit("yaw", 0.2), Edit("smile", 0.5)])
    assert twice.codes[EDIT + "yaw"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    engine = engines.of(avatar)
    whole = engine.decode(avatar, twice).vectors
    part = engine.decode(avatar, twice, slice(2, 4)).vectors
    assert all(torch.allclose(a, b[2:4], atol=1e-5) for a, b in zip(part, whole))


def test_an_older_avatar_keeps_its_directions(avatar, still):
    state = state_of(avatar)
    old = replace(avatar, state=replace(state, steps={}, directions={"smile": state.space.axes[0]}))
    assert list(engines.edits(old)) == ["smile"]
    moved = editing.apply(old, still, [Edit("smile", 0.5, edge="continue")]).codes
    assert set(moved) == {AXES} and not torch.equal(moved[AXES], still.codes[AXES])
    new = engines.of(old).with_steps(old, frames=2)
    assert set(engines.edits(new)) <= set(EDITS) and torch.equal(new.state.anchors, state.anchors)
