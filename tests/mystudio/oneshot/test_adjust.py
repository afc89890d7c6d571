"""Cyclic manifold adjustment: each of its three terms does what it says, latents stay, and a stopped run continues."""

from dataclasses import replace

import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio.errors import TrainingDiverged
from mystudio.motion import losses
from mystudio.oneshot.adjust import AdjustSettings, Distance, Person, adjust
from mystudio.oneshot.rows import joined, rows_of
from mystudio.stylegan2.generator import Generator
from mystudio.types import Styles
from selfscan.perceptual.metric import load_perceptual

QUICK = AdjustSettings(steps=45, rate=3e-3, save_every=15, perceptual=0.0, face=0.0)
PERCEPTUAL = load_perceptual()
SIZE, MOVED = 32, 2  # numbers of a w; the first ones that are motion


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(32, SIZE, SIZE, 2, 256, 16).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def person(generator):
    """Two photos that the base cannot draw, motions in two numbers of w, and a linear encoder of the other ones."""
    torch.manual_seed(1)
    w = generator.mapping(torch.randn(600, SIZE))
    pictures = generator(generator.broadcast(w)).flatten(1)
    middle, mean = pictures.mean(0), w.mean(0)
    x = pictures - middle
    slope = x.t() @ torch.linalg.solve(x @ x.t() + 3.0 * torch.eye(len(x)), w - mean)  # ridge regression
    own = w[:1].clone()
    moves = torch.zeros(6, SIZE)
    moves[:, :MOVED] = w[:6, :MOVED] - own[:, :MOVED]

    def styles(codes: torch.Tensor) -> Styles:
        return generator.styles(generator.broadcast(codes))

    def redraw(drawn: torch.Tensor, rows: torch.Tensor) -> Styles:
        found = (drawn.flatten(1) - middle) @ slope + mean
        return styles(torch.cat([(own + moves[rows])[:, :MOVED], found[:, MOVED:]], 1))

    photos = generator(generator.broadcast(own + moves[:2]))
    photos = photos + 0.3 * torch.linspace(-1, 1, 32)[:, None]
    return Person(
        photos,
        styles(own + moves[:2]),
        lambda count, draw: styles(own + moves[torch.randint(6, (count,), generator=draw)]),
        redraw,
    )


@pytest.fixture(scope="module")
def found(generator, person):
    """The adjustment with all terms, and with each of two left out."""
    kinds = {"all": QUICK, "no locality": replace(QUICK, locality=0.0), "no cycle": replace(QUICK, cycle=0.0)}
    return {name: adjust(generator, person, PERCEPTUAL, settings) for name, settings in kinds.items()}


def test_the_photo_is_met_and_stays_a_cycle(found):
    figures = found["all"][1]
    assert figures["source"] < 0.4 * figures["source_before"]
    assert figures["cycle"] < 0.5 * figures["cycle_before"]
    assert figures["locality_before"] == 0 and figures["steps"] == 45


def test_each_term_keeps_its_promise(found):
    assert found["all"][1]["locality"] < 0.9 * found["no locality"][1]["locality"]
    assert found["all"][1]["cycle"] < 0.6 * found["no cycle"][1]["cycle"]


def test_latents_stay_fixed_in_style_space(generator, person, found):
    tuned, ws = found["all"][0], torch.randn(2, generator.num_ws, SIZE)
    pairs = zip(tuned.styles(ws).vectors, generator.styles(ws).vectors)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(tuned.mapping(ws[:, 0]), generator.mapping(ws[:, 0]))
    assert not torch.equal(tuned.synthesis.b8.conv0.weight, generator.synthesis.b8.conv0.weight)
    assert not any(p.requires_grad for p in tuned.parameters())


@pytest.mark.parametrize("most", [1, 2])
def test_a_stopped_adjustment_ends_in_the_same_weights(generator, person, found, most):
    seen = []

    def progress(*told):
        seen.append(told)

    class Stop(MemoryCheckpoints):
        count = 0

        def put(self, name, arrays):
            super().put(name, arrays)
            self.count += 1
            if self.count == most:
                raise KeyboardInterrupt

    kept = Stop()
    with pytest.raises(KeyboardInterrupt):
        adjust(generator, person, PERCEPTUAL, QUICK, progress, kept)
    assert seen[-1] == ("adjust", 15 * most, 45)
    seen.clear()
    again, figures = adjust(generator, person, PERCEPTUAL, QUICK, progress, kept)
    assert seen[0] == ("adjust", 15 * most + 1, 45) and figures == found["all"][1]
    same = zip(again.state_dict().items(), found["all"][0].state_dict().items())
    assert all(torch.equal(a, b) for (_, a), (_, b) in same)


def test_a_damaged_checkpoint_is_begun_anew(generator, person):
    few = replace(QUICK, steps=3)
    kept = MemoryCheckpoints(adjust={"content": torch.zeros(40, dtype=torch.uint8).numpy()})
    one, _ = adjust(generator, person, PERCEPTUAL, few, checkpoints=kept)
    other, _ = adjust(generator, person, PERCEPTUAL, few)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_no_steps_leave_the_base(generator, person):
    same, figures = adjust(generator, person, PERCEPTUAL, replace(QUICK, steps=0))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), generator.parameters()))
    assert figures["source"] == figures["source_before"]


def test_pixels_that_the_camera_did_not_see_do_not_count(generator, person):
    seen = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    seen[..., 20:, :] = False
    spoiled = person.images.clone()
    spoiled[..., 20:, :] = -1.0
    few = replace(QUICK, steps=2, cycle=0.0)
    one, _ = adjust(generator, replace(person, seen=seen), PERCEPTUAL, few)
    other, _ = adjust(generator, replace(person, images=spoiled, seen=seen), PERCEPTUAL, few)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_values_that_are_not_finite_end_in_a_sentence(generator, person):
    broken = replace(person, images=torch.full_like(person.images, torch.nan))
    with pytest.raises(TrainingDiverged, match="lower adjust.rate"):
        adjust(generator, broken, PERCEPTUAL, QUICK)


def test_the_distance_is_the_sum_of_its_parts(person):
    a, b = person.images[:1], person.images[1:]
    settings = AdjustSettings(pixel=2.0, perceptual=3.0, face=0.5, view=32)
    expected = 2 * losses.pixel(a, b) + 3 * PERCEPTUAL.distance(a, b)
    expected = expected + 0.5 * PERCEPTUAL.distance(losses.face(a, 32), losses.face(b, 32))
    assert torch.allclose(Distance(PERCEPTUAL, settings)(a, b), expected)


def test_rows_and_joins_of_styles_with_weight_deltas():
    shared, own = torch.ones(1, 2, 2), torch.arange(12.0).view(3, 2, 2)
    styles = Styles((torch.arange(6.0).view(3, 2), torch.zeros(3, 1), torch.zeros(3, 1)), (own, shared, None))
    part = rows_of(styles, torch.tensor([2, 0]))
    assert part.vectors[0].tolist() == [[4, 5], [0, 1]] and torch.equal(part.weight_deltas[0], own[[2, 0]])
    assert part.weight_deltas[1] is shared and part.weight_deltas[2] is None
    whole = joined([part, styles])
    assert len(whole.vectors[0]) == 5 and whole.weight_deltas[1].shape == (5, 2, 2) and whole.weight_deltas[2] is None
    with pytest.raises(ValueError, match="in all parts or in none"):
        joined([styles, Styles(styles.vectors)])
