"""Solving on a smaller picture of the same generator, and start codes that measure the same in any batch."""

from dataclasses import replace
from functools import partial

import actor_avatar
import pytest
import torch

from mystudio.compute.compilation import drawer
from mystudio.engines.personal import proxy
from mystudio.engines.personal.problem import Problem, SolveSettings
from mystudio.engines.personal.state import state_of
from mystudio.motion.retarget import RetargetSettings, retarget
from mystudio.stylegan2.growth import grown
from selfscan.face.facemesh import load_facemesh

SHAPE = RetargetSettings(smooth=0.0)


@pytest.fixture(scope="module")
def avatar():
    return actor_avatar.avatar()


@pytest.fixture(scope="module")
def large(avatar):
    """Return the same avatar at 256 px: growth keeps its pictures, so its skip image of 128 px is the old picture."""
    assert avatar.generator.resolution == 128
    return replace(avatar, generator=grown(avatar.generator, 256, 0, 0))


@pytest.fixture(scope="module")
def motion(avatar):
    clip = actor_avatar.performance(actor_avatar.path(5, seed=3))
    return retarget(clip, avatar.neutral, avatar.state.statistics, SHAPE)


def chosen(avatar, least):
    draw = partial(drawer, avatar.generator, torch.device("cpu"))
    return proxy.size(draw, avatar.generator, load_facemesh(), state_of(avatar).space, least)


@pytest.mark.parametrize("least, expected", [(0, None), (128, 128), (256, None), (512, None)])
def test_the_smaller_picture_is_used_where_it_shows_the_same_face(large, least, expected):
    assert chosen(large, least) == expected


def test_a_picture_too_small_for_the_landmarks_is_passed_over(large):
    assert chosen(large, 16) in (64, 128)  # 16 px show no eyes


def test_the_full_picture_is_used_where_the_skip_image_shows_the_face_elsewhere(large):
    def draw(resolution):
        images = drawer(large.generator, torch.device("cpu"), resolution=resolution)
        return images if resolution is None else lambda ws: images(ws).roll(3, dims=3)  # 2 % of a picture of 128 px

    assert proxy.size(draw, large.generator, load_facemesh(), state_of(large).space, 128) is None


def test_the_difference_of_the_small_picture_moves_the_small_picture_alone():
    whole = torch.rand(2, 3, 256, 256, requires_grad=True)
    reduced = torch.nn.functional.interpolate(whole.detach(), (128, 128), mode="bilinear", antialias=True)
    small = (reduced + 0.1).requires_grad_()
    found = proxy.difference([torch.rand(2, 3, 64, 64), small, whole])
    assert torch.allclose(found, torch.full((2,), 0.01), rtol=1e-3)
    found.sum().backward()
    assert small.grad is not None and whole.grad is None
    assert proxy.difference([whole]).tolist() == [0, 0]


def test_the_solver_draws_at_the_size_that_was_chosen(large, motion):
    codes = state_of(large).space.codes[:2]
    sizes = {}
    for name, settings in {
        "small": SolveSettings(),
        "full": SolveSettings(proxy=0),
        "adam": SolveSettings(method="adam"),
    }.items():
        problem = Problem.of(large, motion, SHAPE, settings)
        sizes[name] = problem.images(codes).shape[-1]
        assert problem.images(codes, problem.draw_start).shape[-1] == sizes[name]
    assert sizes == {"small": 128, "full": 256, "adam": 256}


@torch.no_grad()
def test_small_pictures_lead_to_keypoints_of_the_full_picture(large, motion):
    small, full = (Problem.of(large, motion, SHAPE, SolveSettings(proxy=size)) for size in (128, 0))
    codes = small.start
    apart = small.render_and_measure(codes).keypoints - full.render_and_measure(codes).keypoints
    assert apart.square().sum(-1).mean().sqrt() < proxy.ALIKE


@torch.no_grad()
def test_start_codes_measure_the_same_in_any_batch(avatar, motion):
    problem = Problem.of(avatar, motion, SHAPE, SolveSettings())
    codes = state_of(avatar).space.codes[: proxy.PASS]
    whole = problem.measure_start(codes)
    for first, count in ((0, 1), (1, 3), (2, 4), (3, 5)):
        part = problem.measure_start(codes[first : first + count])
        for name in ("landmarks", "mouth", "irises"):  # rounding of bfloat16 alone would differ by 1e-3
            there = getattr(whole, name)[first : first + count]
            assert torch.allclose(getattr(part, name), there, atol=2e-5)
