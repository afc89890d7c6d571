"""Edits: no-op at zero, linear keyframes, edge policies at the hull's border, directions from samples and files."""

from dataclasses import replace

import actor_avatar
import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio import editing, engines
from mystudio.editing import POLICIES, apply, load_directions, strength_at
from mystudio.engines.personal import edits as personal_edits
from mystudio.engines.personal.edits import DILATION, learn_directions
from mystudio.engines.personal.regress import Samples, draw_and_measure
from mystudio.engines.personal.space import AnchorSpace, hull_weights
from mystudio.engines.personal.state import AXES, state_of
from mystudio.errors import BadEdit
from mystudio.types import Avatar, Edit, Take
from selfscan.face.facemesh import load_facemesh
from selfscan.face.headpose import canonical_head, rotation
from selfscan.face.measures import measures


@pytest.fixture(scope="module")
def avatar(tiny_avatar) -> Avatar:
    draw = torch.Generator().manual_seed(3)
    codes = {name: 0.5 * torch.randn(8, generator=draw) for name in ("smile", "yaw")}
    axes = AnchorSpace.of(tiny_avatar.state.anchors, 8).axes
    return replace(
        tiny_avatar, state=replace(tiny_avatar.state, directions={name: d @ axes for name, d in codes.items()})
    )


@pytest.fixture(scope="module")
def space(avatar) -> AnchorSpace:
    return state_of(avatar).space


@pytest.fixture(scope="module")
def inside(take, space) -> Take:
    """A take whose every code lies in the hull."""
    logits = torch.randn(len(take), 1, 12, generator=torch.Generator().manual_seed(4))
    return replace(take, codes={AXES: (hull_weights(logits) @ space.codes).expand_as(take.codes[AXES]).contiguous()})


def move_of(avatar, space, name="smile"):
    return space.direction(avatar.state.directions[name])


@pytest.mark.parametrize("edge", POLICIES)
@pytest.mark.parametrize("zero", [{"strength": 0.0}, {"keys": ((0.0, 0.0), (1.0, 0.0))}])
def test_zero_strength_changes_no_bit(avatar, take, edge, zero):
    wild = replace(take, codes={AXES: 9 * take.codes[AXES]})  # far outside the hull: "project" must not change them
    assert torch.equal(apply(avatar, wild, [Edit("smile", edge=edge, **zero)]).codes[AXES], wild.codes[AXES])


@pytest.mark.parametrize("edge", POLICIES)
def test_frames_at_zero_strength_change_no_bit(avatar, take, edge):
    wild = replace(take, codes={AXES: 9 * take.codes[AXES]})
    middle = float(take.times[6])
    keys = ((middle, 0.0), (float(take.times[-1]), 1.0))
    made = apply(avatar, wild, [Edit("smile", keys=keys, edge=edge)]).codes[AXES]
    assert torch.equal(made[:7], wild.codes[AXES][:7])


def test_only_codes_and_the_record_of_edits_change(avatar, inside):
    before = inside.codes[AXES].clone()
    edits = [Edit("smile", 1.0), Edit("yaw", -0.5)]
    made = apply(avatar, inside, edits)
    assert torch.equal(inside.codes[AXES], before) and not torch.equal(made.codes[AXES], before)
    assert made.edits == (*inside.edits, *edits)
    assert apply(avatar, made, edits).edits == (*edits, *edits)
    assert made.outcome is inside.outcome and made.losses is inside.losses and made.times is inside.times


def test_keyframes_are_linear_and_held_outside():
    edit_ = Edit("smile", keys=((2.0, 1.0), (1.0, 0.0), (4.0, -1.0)))  # in any order
    times = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 9.0])
    assert strength_at(edit_, times).tolist() == [0.0, 0.0, 0.5, 1.0, 0.0, -0.5, -1.0, -1.0]
    assert strength_at(Edit("smile", 0.7), times).tolist() == [0.7] * 8


def test_strength_follows_the_takes_own_times(avatar, take, space):
    keys = ((float(take.times[0]), 0.0), (float(take.times[-1]), 2.0))
    made = apply(avatar, take, [Edit("smile", keys=keys, edge="continue")]).codes[AXES]
    theta = 2 * (take.times - take.times[0]) / (take.times[-1] - take.times[0])
    expected = take.codes[AXES] + torch.as_tensor(theta, dtype=torch.float32)[:, None, None] * move_of(avatar, space)
    assert torch.allclose(made, expected, atol=1e-5)


def test_continue_is_linear_and_additive(avatar, take):
    def moved(*edits):
        return apply(avatar, take, [Edit(name, s, edge="continue") for name, s in edits]).codes[AXES] - take.codes[AXES]

    one = moved(("smile", 1.0))
    assert torch.allclose(moved(("smile", -3.0)), -3 * one, atol=1e-5)
    both = moved(("smile", 1.0), ("yaw", 2.0))
    assert torch.allclose(both, one + moved(("yaw", 2.0)), atol=1e-5)
    assert torch.allclose(both, moved(("yaw", 2.0), ("smile", 1.0)), atol=1e-5)


def test_project_lands_on_the_nearest_point_of_the_hull(avatar, inside, space):
    made = apply(avatar, inside, [Edit("smile", 30.0, edge="project")]).codes[AXES]
    far = inside.codes[AXES] + 30 * move_of(avatar, space)
    assert space.outside(far, DILATION).min() > 1
    assert space.outside(made, DILATION).max() < 0.01
    assert torch.allclose((far - made).norm(dim=-1), space.outside(far, DILATION), rtol=1e-3)


@pytest.mark.parametrize("strength", [3.0, 30.0, -30.0, 1000.0])
def test_stop_never_leaves_the_hull(avatar, inside, space, strength):
    made = apply(avatar, inside, [Edit("smile", strength, edge="stop")]).codes[AXES]
    assert space.outside(made, DILATION).max() < 0.03
    share = (made - inside.codes[AXES]) / (strength * move_of(avatar, space))
    assert (share.amax(-1) - share.amin(-1)).max() < 1e-2  # straight along the direction
    assert share.min() > -1e-4 and share.max() < 1 + 1e-4


def test_stop_goes_as_far_as_the_hull_reaches(avatar, inside, space):
    made = apply(avatar, inside, [Edit("smile", 20.0, edge="stop")]).codes[AXES]
    further = made + 20 / 100 * move_of(avatar, space)
    assert space.outside(further, DILATION).amax(1).min() > 0.02
    small = apply(avatar, inside, [Edit("smile", 0.05, edge="stop")]).codes[AXES]
    assert torch.allclose(small, inside.codes[AXES] + 0.05 * move_of(avatar, space), atol=1e-6)


def test_stop_never_takes_a_code_further_out(avatar, inside, space):
    out = replace(inside, codes={AXES: 6 * inside.codes[AXES]})
    before, made = (
        space.outside(out.codes[AXES], DILATION),
        apply(avatar, out, [Edit("smile", 5.0, edge="stop")]).codes[AXES],
    )
    assert before.max() > 0.5
    assert (space.outside(made, DILATION) <= before + 0.03).all()


def test_unknown_names_are_answered_with_the_known_ones(avatar, take):
    with pytest.raises(BadEdit, match="offers no direction 'grin'; it has smile, yaw"):
        apply(avatar, take, [Edit("grin")])
    with pytest.raises(BadEdit, match="it has none"):
        apply(replace(avatar, state=replace(avatar.state, directions={})), take, [Edit("grin")])


@pytest.mark.parametrize("wrong", [{"strength": float("nan")}, {"strength": float("inf")},
                                   {"keys": ((0.0, float("nan")),)}, {"edge": "bounce"}])  # fmt: skip
def test_wrong_edits_are_refused_with_a_sentence(avatar, take, wrong):
    with pytest.raises(BadEdit, match="expected"):
        apply(avatar, take, [Edit("smile", **wrong)])


def test_directions_from_a_file(avatar, take, space, tmp_path):
    from safetensors.torch import save_file

    age = torch.randn(16, generator=torch.Generator().manual_seed(5))
    save_file({"age": age.double()}, tmp_path / "more.safetensors")
    np.savez(tmp_path / "more.npz", age=age.numpy())
    for name in ("more.safetensors", "more.npz"):
        found = load_directions(tmp_path / name, 16)
        assert list(found) == ["age"] and torch.equal(found["age"], age)
        made = apply(avatar, take, [Edit("age", 2.0, edge="continue")], found).codes[AXES]
        assert torch.allclose(made, take.codes[AXES] + 2 * space.direction(age), atol=1e-4)


def test_a_direction_may_move_each_layer_in_its_own_way(avatar, take, inside, space):
    layers = torch.randn(avatar.generator.num_ws, 16, generator=torch.Generator().manual_seed(6))
    made = apply(avatar, take, [Edit("age", 2.0, edge="continue")], {"age": layers}).codes[AXES]
    assert torch.allclose(made, take.codes[AXES] + 2 * space.direction(layers), atol=1e-4)
    for edge in ("project", "stop"):
        moved = apply(avatar, inside, [Edit("age", 50.0, edge=edge)], {"age": layers}).codes[AXES]
        assert space.outside(moved, DILATION).max() < 0.05  # both stay inside the border


FAULTS = {
    "missing": None, "empty": b"", "text": b"smile: 1.0", "pickle": b"\x80\x04}.",
    "wrong length": {"age": np.ones(15)}, "matrix": {"age": np.ones((16, 16))},
    "not a number": {"age": np.full(16, np.nan)}, "objects": {"age": np.array([{}] * 16)},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_direction_files_are_refused_with_a_sentence(tmp_path, fault, suffix):
    from safetensors.numpy import save_file

    path, content = tmp_path / f"more{suffix}", FAULTS[fault]
    if isinstance(content, dict) and (suffix == ".npz" or fault == "objects"):
        np.savez(tmp_path / "more.npz", **content)
        path = tmp_path / "more.npz"
    elif isinstance(content, dict):
        save_file(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BadEdit, match=f"{path.name}.*expected"):
        load_directions(path, 16)


def turned_and_speaking(count: int = 200, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return heads [count, 478, 3] with random yaw and random opening of the mouth; optionally with roll."""
    amounts = np.random.default_rng(0).standard_normal((count, 2))
    heads = np.repeat(canonical_head()[None], count, 0)
    heads[:, [14, 87, 178, 317, 402, 17, 84, 314], 1] += 0.15 + 0.04 * amounts[:, 1:]
    angles = np.zeros((count, 3))
    angles[:, 0] = 0.2 * amounts[:, 0]
    angles[:, 2] = roll * (amounts[:, 0] + np.random.default_rng(1).standard_normal(count))  # the more, the further
    return np.einsum("tij,tkj->tki", rotation(angles), heads), amounts


def test_learned_directions_are_those_of_the_attributes():
    marks, amounts = turned_and_speaking()
    corners = torch.randn(30, 5, generator=torch.Generator().manual_seed(6))
    space = AnchorSpace.of(corners, 5)
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(7))
    mixed = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(8)))[0]
    codes = torch.cat([torch.as_tensor(amounts).float(), noise], 1) @ mixed
    found = learn_directions(Samples(codes, torch.as_tensor(marks).float(), torch.zeros(200, 1)), space)
    for name, row in (("yaw", 0), ("mouth_open", 1)):
        direction = space.direction(found[name]) @ mixed.t()  # back to the numbers that were drawn
        assert float(direction[row]) == pytest.approx(1.0, abs=0.12)  # one standard deviation
        others = torch.cat([direction[:row], direction[row + 1 :]])
        assert others.abs().max() < 0.2


def test_roll_is_not_offered_and_other_directions_do_not_tilt():
    """The alignment removes roll from every crop; residual roll must not leak into the directions."""
    marks, amounts = turned_and_speaking(roll=0.1)
    tilt = measures(marks)["roll"]
    codes = torch.as_tensor(np.stack([amounts[:, 0], amounts[:, 1], tilt / tilt.std()], 1)).float()
    space = AnchorSpace.of(torch.randn(30, 3, generator=torch.Generator().manual_seed(6)), 3)
    found = learn_directions(Samples(codes, torch.as_tensor(marks).float(), torch.zeros(200, 1)), space)
    assert "yaw" in found and "roll" not in found
    yaw = space.direction(found["yaw"])
    assert float(yaw[0]) == pytest.approx(1.0, abs=0.12) and abs(float(yaw[2])) < 0.2


def test_an_older_avatar_that_offers_roll_still_edits_by_it(avatar, take):
    older = replace(avatar, state=replace(avatar.state, directions={"roll": avatar.state.directions["yaw"]}))
    assert list(engines.directions(older)) == ["roll"]
    before, after = take.codes[AXES], apply(older, take, [Edit("roll", 1.0)]).codes[AXES]
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", ["yaw", "mouth_open"])
def test_an_avatars_own_directions_do_what_they_say(name):
    avatar = actor_avatar.avatar()
    space = state_of(avatar).space
    strengths = torch.tensor([0.0, 1.0, 2.0, 3.0])  # a closed mouth cannot close further
    codes = strengths[:, None] * space.direction(avatar.state.directions[name])
    marks = draw_and_measure(avatar.generator, load_facemesh(), space, codes)[0].numpy()
    value = measures(marks)[name]
    assert (np.diff(value) > 0).all()


def test_sheet_has_a_row_for_each_direction(avatar, take):
    picture = editing.sheet(avatar, take, strengths=(-1, 0, 1))
    assert picture.shape == (24 + 2 * 32, 96 + 3 * 32, 3) and picture.dtype == np.uint8
    assert editing.sheet(replace(avatar, state=replace(avatar.state, directions={}))).shape == (24, 96 + 5 * 32, 3)
    code = take.codes[AXES][len(take) // 2]  # a strength of 0 shows the take's own frame
    middle = avatar.generator(state_of(avatar).space.decode(code)[None]).clamp(-1, 1)[0]
    shown = picture[24:56, 96 + 32 : 96 + 64]
    assert np.abs(shown - ((middle + 1) * 127.5).permute(1, 2, 0).detach().numpy()).max() <= 1.01


@pytest.mark.parametrize("edge", ["project", "stop"])
def test_an_edit_goes_on_after_its_last_chunk(avatar, take, edge, monkeypatch):
    monkeypatch.setattr("selfscan.checkpoints.CHUNK", 5)
    wild, keys = (
        replace(take, codes={AXES: 9 * take.codes[AXES]}),
        ((float(take.times[6]), 0.0), (float(take.times[-1]), 1.0)),
    )
    edits = [Edit("smile", 1.0, edge=edge), Edit("yaw", keys=keys, edge=edge)]
    whole, kept = apply(avatar, wild, edits), MemoryCheckpoints()
    kept.most = 4
    with pytest.raises(KeyboardInterrupt):
        apply(avatar, wild, edits, checkpoints=kept)
    assert sorted(kept) == [f"edit{n}.moved{start:07d}" for n, start in ((0, 0), (0, 5), (0, 10), (1, 0))]
    kept.most, done = MemoryCheckpoints.most, []
    monkeypatch.setattr(
        personal_edits,
        "_move",
        lambda space, codes, *rest, real=personal_edits._move: (done.append(len(codes)), real(space, codes, *rest))[1],
    )
    assert torch.equal(apply(avatar, wild, edits, checkpoints=kept).codes[AXES], whole.codes[AXES])
    assert done == [5, 2]
