"""Solvers with the same start, clip and objective; the objective is measured in the same way for all at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mystudio.engines.personal import adam, gauss_newton
from mystudio.engines.personal.measure import Terms, data_terms, output_vector, weighted_sum
from mystudio.engines.personal.problem import Problem
from mystudio.engines.personal.settings import ReenactSettings
from mystudio.engines.personal.state import state_of
from mystudio.engines.personal.windows import Solved
from mystudio.motion.losses import temporal
from mystudio.motion.retarget import retarget
from mystudio.recipe import resolve
from mystudio.types import Avatar, Outcome, Performance
from selfscan.face import patches
from selfscan.face.facemesh import crop_landmarks

DIFFERENCE = 0.05  # step of a finite difference, in anchor standard deviations
BACKWARD = 3  # a forward and backward pass counts as three passes


@dataclass(frozen=True)
class Counted(Problem):
    """A problem that counts drawn and measured images."""

    drawn: list[int] = field(default_factory=list)

    def images(self, codes: Tensor, draw: Callable[[Tensor], Tensor] | None = None, fill_to: int = 0) -> Tensor:
        self.drawn.append(len(codes))
        return super().images(codes, draw, fill_to)

    @property
    def passes(self) -> int:
        return sum(self.drawn)


def counted(avatar: Avatar, performance: Performance, how: ReenactSettings) -> Counted:
    """Retarget a performance to an avatar; return the problem of its frames, at the settings ``how``."""
    motion = retarget(performance, avatar.neutral, state_of(avatar).statistics, how.retarget)
    return Counted(**vars(Problem.of(avatar, motion, how.retarget, how.reenact)))


Solve = Callable[[Problem, range], Solved]


@dataclass(frozen=True)
class Rival:
    """A way to solve a window."""

    name: str
    title: str
    run: Solve
    weight: int = 1  # number of passes that one drawn image counts as
    few: bool = False  # slow: only a few frames are solved


def _engine(**options) -> Solve:
    """Return one of the engine's solvers with changed settings."""

    def run(problem: Problem, frames: range) -> Solved:
        settings = replace(problem.settings, **options)
        solver = adam if settings.method == "adam" else gauss_newton
        return solver.solve_window(replace(problem, settings=settings), frames, None, lambda done: None)

    return run


def paper(problem: Problem, frames: range) -> Solved:
    """The paper's solver with the paper's settings, from the same start."""
    return _engine(**vars(resolve("paper", ()).of("personal", "reenact").reenact))(problem, frames)


def start(problem: Problem, frames: range) -> Solved:
    """No solver."""
    return _engine(steps=0)(problem, frames)


def levenberg_marquardt(steps: int, resolution: int | None) -> Solve:
    """Return a Levenberg-Marquardt solver with true Jacobians by finite differences before every step.

    Args:
        resolution: px of the picture for the differences (an early toRGB output, enlarged); None = full size.
    """

    def slope(problem: Problem, codes: Tensor) -> Tensor:
        return true_jacobian(problem, codes, resolution)

    def run(problem: Problem, frames: range) -> Solved:
        part = replace(problem, settings=replace(problem.settings, steps=steps))
        return gauss_newton.solve_window(part, frames, None, lambda done: None, slope)

    return run


@torch.no_grad()
def true_jacobian(problem: Problem, codes: Tensor, resolution: int | None = None) -> Tensor:
    """Return d output / d code [T, M, K] by forward differences; K + 1 passes per frame."""
    columns = []
    for code in codes:
        around = torch.cat([code[None], code + DIFFERENCE * torch.eye(len(code))])
        outputs = torch.cat([_outputs_of(problem, part, resolution) for part in around.split(problem.settings.batch)])
        columns.append((outputs[1:] - outputs[:1]).t() / DIFFERENCE)
    return torch.stack(columns)


def _outputs_of(problem: Problem, codes: Tensor, resolution: int | None) -> Tensor:
    images = proxy(problem, codes, resolution) if resolution else problem.images(codes)
    landmarks, _ = crop_landmarks(problem.mesh, images)
    return output_vector(landmarks, *patches.mouth_and_irises(images, landmarks)).to(codes.device)


def proxy(problem: Problem, codes: Tensor, resolution: int) -> Tensor:
    """Draw the picture after the block of ``resolution`` px, enlarged to the generator's size."""
    generator = problem.generator
    if isinstance(problem, Counted):
        problem.drawn.append(len(codes))
    ws = generator.broadcast(problem.space.decode(codes).to(next(generator.parameters()).device))
    return torch.nn.functional.interpolate(
        generator(ws, resolution=resolution), (generator.resolution,) * 2, mode="bilinear", align_corners=False
    )


def lbfgs(evaluations: int) -> Solve:
    """Return a solver by L-BFGS (scipy) over all codes of the window at once."""

    def run(problem: Problem, frames: range) -> Solved:
        rows = torch.arange(frames.start, frames.stop)
        begin = problem.start[rows][:, None].expand(-1, problem.generator.num_ws, -1)

        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            chart = adam.Axes(problem, begin)
            chart.shared.data.copy_(torch.as_tensor(x).view_as(chart.shared))
            _, terms = adam.backward(problem, chart, rows, None)
            value = weighted_sum(terms, problem.settings.weights).sum()
            assert chart.shared.grad is not None
            return float(value), chart.shared.grad.double().numpy().ravel()

        found = minimize(
            value_and_slope,
            problem.start[rows].double().numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": evaluations, "maxiter": evaluations},
        )
        codes = torch.as_tensor(found.x, dtype=torch.float32).view(len(rows), 1, -1)
        return Solved(codes.expand(-1, problem.generator.num_ws, -1).clone(), np.full(len(rows), Outcome.CONVERGED), {})

    return run


RIVALS = (
    Rival("start", "start codes, not solved", start),
    Rival("default", "Gauss-Newton, learned Jacobian (the default)", _engine()),
    Rival("lm-proxy", "Levenberg-Marquardt, true Jacobian at half size", levenberg_marquardt(3, 64)),
    Rival("lm", "Levenberg-Marquardt, true Jacobian", levenberg_marquardt(3, None)),
    Rival("adam", "Adam, all frames at once, 60 steps",
          _engine(method="adam", space="axes", start="regressor", steps=60, rate=0.03, tolerance=0.0), BACKWARD),
    Rival("lbfgs", "L-BFGS, all frames at once, 40 evaluations", lbfgs(40), BACKWARD),
    Rival("paper", "the paper's: Adam frame by frame, 1,000 steps", paper, BACKWARD, few=True),
)  # fmt: skip


@torch.no_grad()
def objective(problem: Problem, codes: Tensor, rows: Tensor) -> dict[str, float]:
    """Return means over frames of the default solver's objective and of its terms, at codes [T, L, K]."""
    s, parts = problem.settings, torch.arange(len(rows)).split(problem.settings.batch)
    found = [data_terms(problem.render_and_measure(codes[part]), problem.motion, rows[part]) for part in parts]
    terms: Terms = {name: torch.cat([f[name] for f in found]) for name in found[0]}
    middle = codes.mean(1)
    terms |= problem.priors(middle, rows)
    terms["hull"] = problem.space.outside(middle, s.dilation).square() / problem.space.rank
    terms["temporal"] = temporal(codes, problem.linked[rows[:-1]])
    total = weighted_sum(terms, s.weights)
    return {"objective": float(total.mean()), **{name: float(term.mean()) for name, term in terms.items()}}


def timed(rival: Rival, problem: Counted, frames: range) -> tuple[Solved, dict[str, float]]:
    """Solve, and return the solution and its cost per frame."""
    problem = replace(problem, drawn=[])
    began = time.process_time()
    solved = rival.run(problem, frames)
    spent = time.process_time() - began
    return solved, {
        "frames": len(frames),
        "cpu_seconds": spent / len(frames),
        "passes": rival.weight * problem.passes / len(frames),
    }
