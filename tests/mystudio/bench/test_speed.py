"""The speed measurements are fair: true Jacobians, one objective for all solvers, equal work on both sides."""

from dataclasses import replace

import actor_avatar
import numpy as np
import pytest
import torch

from mystudio.bases import find_base
from mystudio.bench import rates, speed
from mystudio.bench.ledger import Ledger
from mystudio.bench.personal import ratios, solvers
from mystudio.engines.personal.problem import Problem, SolveSettings
from mystudio.engines.personal.tune import TuneSettings, tune
from mystudio.motion.retarget import retarget
from mystudio.recipe import resolve
from mystudio.stylegan2.generator import Generator
from selfscan.perceptual.metric import load_perceptual

ROWS = range(4, 8)


@pytest.fixture(scope="module")
def problem() -> solvers.Counted:
    made, settings = actor_avatar.avatar(), actor_avatar.SETTINGS
    clip = actor_avatar.performance(actor_avatar.path(8, seed=3))
    motion = retarget(clip, made.neutral, made.state.statistics, settings.retarget)
    return solvers.Counted(**vars(Problem.of(made, motion, settings.retarget, SolveSettings(steps=2))))


def test_a_true_jacobian_foretells_what_a_step_does(problem):
    draw = torch.Generator().manual_seed(0)

    def missed(code: torch.Tensor) -> list[float]:
        """Return the share of a small step's effect on keypoints that each Jacobian fails to predict; 1 for zero."""
        code = code[None]
        slope, near = (solvers.true_jacobian(problem, code, size)[0] for size in (None, 64))
        steps = 0.02 * torch.randn(6, code.shape[1], generator=draw)
        with torch.no_grad():
            outputs = solvers._outputs_of(problem, torch.cat([code, code + steps]), None)
        happened = (outputs[1:] - outputs[:1])[:, :198]
        return [
            float((happened - steps @ jacobian[:198].t()).norm() / happened.norm())
            for jacobian in (slope, near, problem.regressor.jacobian(code)[0])
        ]

    # median over frames, because the landmark network is discontinuous at single frames
    slope, near, learned = np.median([missed(code) for code in problem.start], 0)
    assert slope < 0.5
    assert slope < near < 1
    assert slope < learned


def test_the_objective_is_the_solvers_own(problem):
    before = list(problem.drawn)
    solved, cost = solvers.timed(solvers.RIVALS[1], problem, ROWS)
    assert problem.drawn == before  # each measurement counts its own
    found = solvers.objective(problem, solved.codes, torch.arange(ROWS.start, ROWS.stop))
    own = float(solved.losses["total"].mean()) + problem.settings.temporal * found["temporal"]
    assert found["objective"] == pytest.approx(own, rel=1e-3)
    assert 2 <= cost["passes"] <= 3 and cost["frames"] == 4 and cost["cpu_seconds"] > 0  # a start and two steps


@pytest.mark.parametrize("name", ["lm-proxy", "lbfgs"])
def test_rivals_lower_the_objective_of_the_start(problem, name):
    rows = torch.arange(ROWS.start, ROWS.stop)
    start = solvers.objective(problem, solvers.start(problem, ROWS).codes, rows)["objective"]
    rival = {"lm-proxy": solvers.levenberg_marquardt(1, 64), "lbfgs": solvers.lbfgs(9)}[name]
    assert solvers.objective(problem, rival(problem, ROWS).codes, rows)["objective"] < 0.98 * start


def test_the_papers_solver_has_the_papers_settings_and_never_stops_early():
    settings = resolve("paper", ()).of("personal", "reenact").reenact
    assert (settings.method, settings.start, settings.space) == ("adam", "previous", "softplus")
    assert (settings.steps, settings.rate, settings.tolerance) == (1000, 5e-3, 0.0)


def test_the_plain_generator_does_the_same_work():
    torch.manual_seed(0)
    generator = Generator(32, 8, 8, 2, 256, 16)
    for name, p in generator.named_parameters():
        if name.endswith("bias"):
            p.data.add_(0.3 * torch.randn_like(p))
    found = ratios.forward_backward(generator, 3, "float32", rounds=1)
    assert found["difference"] < 1e-4 and found["times"] == pytest.approx(found["theirs"] / found["ours"])


def test_selection_picks_the_same_frames_with_far_fewer_passes():
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    found = ratios.selection(images, 10, load_perceptual("face"), proven=12)
    assert found["same"] == 1 and found["times"] > 2
    assert found["theirs"] == pytest.approx(found["pair"] * 40 * 39 / 2)


def test_equal_distances_are_compared():
    ours = [(1.0, 10, 0.5), (2.0, 20, 0.3), (3.0, 30, 0.1)]  # means so far: .5, .4, .3
    theirs = [(10.0, 100, 0.6), (20.0, 200, 0.2), (30.0, 300, 0.4)]  # .6, .4, .4
    found = ratios.compared(ours, theirs)
    assert (found["met"], found["end"]) == pytest.approx((0.4, 0.3))
    assert (found["ours"], found["theirs"], found["first"]) == (2.0, 30.0, 20.0)
    assert (found["times"], found["first_times"]) == (15.0, 10.0)
    assert "times" not in ratios.compared(ours[:1], theirs)


def test_a_distance_is_the_mean_of_ten_checks():
    curve = [(float(k), k, float(k % 2)) for k in range(30)]
    assert [distance for *_, distance in ratios._steady(curve)][9:] == [0.5] * 21


def test_tuning_is_watched_and_can_be_ended(tiny_avatar):
    anchors, size = tiny_avatar.state.anchors, tiny_avatar.generator.resolution
    images = torch.rand(len(anchors), 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    perceptual = load_perceptual("face")
    watch = ratios._Watch(anchors, images, perceptual, [0, 5], budget=0.0, every=5)
    settings = TuneSettings(steps=40, check_every=5, held_out=1, face=0.0, view=0, compile="no")
    _, info = tune(tiny_avatar.generator, anchors, images, perceptual, settings, watch=watch)
    assert info["steps"] == 5 and set(watch.curves) == {"whole", "face"}
    assert all([step for _, step, _ in curve] == [5] and curve[0][2] > 0 for curve in watch.curves.values())


@pytest.mark.slow
def test_tuning_is_compared_by_whole_face_and_terms():
    """Every comparison runs until the loss that MyStyle's schedule reached in its budget: fifty iterations here."""
    small = {"steps": 10, "resolution": 0, "width": 0, "compile": "no"}
    recipe = resolve("default", [f"personalize.{key}={value}" for key, value in small.items()])
    found = ratios.personalization(
        find_base("people128"), actor_avatar.scan(), recipe, load_perceptual("face"), budget=0.0
    )
    assert list(found) == ["whole", "face", "terms"]
    assert found["whole"]["met"] == found["terms"]["met"] != found["face"]["met"]  # one MyStyle run, two views
    assert found["whole"]["end"] != found["terms"]["end"]  # two runs of mystudio
    assert all(row["theirs_iterations"] == 50 and row["theirs"] > 0 for row in found.values())
    assert {row["share"] for row in found.values()} == {50 / 22_000}  # 22 of 24 images, 1,000 passes


def test_reenactment_is_timed_at_a_larger_shape_too():
    made, clip = actor_avatar.avatar(), actor_avatar.performance(actor_avatar.path(4, seed=3))
    recipe, size = resolve("quick", ("reenact.steps=1",)), made.generator.resolution
    found, large = (
        rates.reenactment(made, clip, recipe, torch.device("cpu"), shape) for shape in (None, {"resolution": 2 * size})
    )
    assert (found["resolution"], large["resolution"]) == (size, 2 * size) and found["frames"] == large["frames"] == 4
    assert found["fps"] == pytest.approx(4 / found["wall"])
    assert made.generator.resolution == size


def test_the_generators_arithmetic_is_counted():
    """A pass with twice the batch does twice the work."""

    def counted(batch):
        found = rates.share_of_peak(Generator(16, channel_base=256, channel_max=32), batch, torch.device("cpu"), 64, 1)
        assert 0 < found["tflops"] and found["share"] == pytest.approx(found["tflops"] / found["peak"])
        return found["gflop"]

    assert counted(8) == pytest.approx(2 * counted(4), rel=0.05)


def test_the_summary_takes_pairs_that_have_both(tmp_path):
    ledger = Ledger(tmp_path)
    values = {"cpu_seconds": 0.1, "objective": 1.0, "perceptual": 0.2, "psnr": 20.0, "pose": 1.0, "expression": 0.1}
    assert speed.summary(ledger) == {}
    for pair in ("a", "b"):
        ledger.measure(f"speed/{pair}/paper-default", {}, {}, lambda steps: values)
    ledger.measure("speed/a/paper-paper", {}, {}, lambda steps: values | {"cpu_seconds": 40.0})
    found = speed.summary(ledger)
    assert found["pairs"] == 1 and found["times"] == pytest.approx(400)


def test_a_solver_without_a_slope_learns_it(problem):
    """The default solver needs no true Jacobian: it draws one image per frame and step."""
    drawn = replace(problem, drawn=[])
    solvers._engine(steps=1, tolerance=0.0)(drawn, ROWS)
    assert drawn.passes == 2 * len(ROWS)
