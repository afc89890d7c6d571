"""The forecast of what an avatar cannot follow: geometry of the hull, and a person whose scan lacks a motion."""

import actor_avatar
import numpy as np
import torch

from mystudio.actors.factors import MOTION_NAMES
from mystudio.evaluation.forecast import COUNTED, ENLARGED, LEAST, Forecast, forecast, reachable
from mystudio.motion.retarget import neutral_of

FPS = 25


def told(wanted, shown):
    """Forecast of attributes: only the named ones differ from 0."""
    wanted, shown = np.asarray(wanted, float), np.asarray(shown, float)
    times = np.arange(len(wanted)) / FPS
    expected = reachable(shown, wanted)
    return Forecast(wanted, expected, np.ones(len(wanted), bool), times, shown.min(0), shown.max(0))


def faces(**values):
    """Attributes [T, C], 0 where they are not named."""
    out = np.zeros((len(next(iter(values.values()))), len(COUNTED)))
    for name, value in values.items():
        out[:, COUNTED.index(name)] = value
    return out


def test_a_point_inside_is_reached_and_one_outside_is_projected():
    square = np.array([[0, 0], [2, 0], [0, 2], [2, 2]], float)
    high, low = 2 + ENLARGED, -ENLARGED
    wanted = np.array([[1.0, 0.3], [5, 1], [5, 5], [-3, 1.5]])
    nearest = np.array([[1, 0.3], [high, 1], [high, high], [low, 1.5]])
    assert np.allclose(reachable(square, wanted), nearest, atol=1e-3)


def test_a_motion_beyond_the_scan_is_told_with_its_seconds_and_advice():
    shown = faces(smile=[0, 1, 0, 1], yaw=[0, 0, 1, 1])
    smile = np.zeros(50)
    smile[20:30] = 3
    found = told(faces(smile=smile, yaw=np.full(50, 0.5)), shown)
    (gap,) = found.gaps()
    assert (gap.name, gap.sign) == ("smile", 1) and not gap.spans[0].together
    assert np.isclose(gap.spans[0].start, 20 / FPS) and np.isclose(gap.spans[0].end, 30 / FPS)
    assert np.isclose(gap.spans[0].missing, 3 - (1 + ENLARGED * 0.5), atol=1e-3)
    assert found.sentences() == ["0.8-1.2 s: the driver smiles wider than in the scan; record a broad smile to get it"]


def test_what_the_scan_shows_only_together_is_told_apart_from_what_it_never_shows():
    line = np.linspace(0, 3, 8)
    found = told(faces(smile=np.full(20, 2.5), brows=np.zeros(20)), faces(smile=line, brows=line))
    gaps = {(gap.name, gap.sign): gap for gap in found.gaps()}
    assert set(gaps) == {("smile", 1), ("brows", -1)}
    assert all(gap.spans[0].together for gap in gaps.values())
    assert np.allclose(found.missing[:, COUNTED.index("smile")], 1.25, atol=1e-3)  # half way to the line


def test_both_lids_are_one_gap_and_a_wink_is_one_of_its_side():
    shown = faces(lid_right=[2, 3], lid_left=[2, 3])
    closed = told(faces(lid_right=np.zeros(10), lid_left=np.zeros(10)), shown)
    assert [(gap.name, gap.sign) for gap in closed.gaps()] == [("lids", -1)]
    wink = told(
        faces(lid_right=np.zeros(10), lid_left=np.full(10, 2.5)), faces(lid_right=[2, 3, 2, 3], lid_left=[2, 3, 3, 2])
    )
    assert [(gap.name, gap.sign) for gap in wink.gaps()] == [("lid_right", -1)]


def test_a_scan_without_smiles_misses_the_smiles_of_a_driver_and_one_with_smiles_does_not():
    smile = MOTION_NAMES.index("mouthSmile")
    rest = actor_avatar.motions(24, seed=0)
    for name in ("mouthFunnel", "mouthPucker", "mouthFrown", "mouthStretch", "mouthLeft", "mouthRight"):
        rest[:, MOTION_NAMES.index(name)] = 0
    rest[:, smile] = -1
    with_smiles = rest.clone()
    with_smiles[1::2, smile] = 2.5
    driver = torch.zeros(40, 26)
    driver[15:25, smile] = 2.0
    performance = actor_avatar.performance(driver)
    missing = {}
    for name, motion in (("without", rest), ("with", with_smiles)):
        _, marks = actor_avatar.person(motion)
        found = forecast(marks, marks[0], performance)
        sizes = {(gap.name, gap.sign): gap for gap in found.gaps()}
        missing[name] = found.missing[15:25, COUNTED.index("smile")].mean()
        if name == "without":
            span = max(
                (sizes[key].spans[0] for key in (("smile", 1), ("mouth_width", 1)) if key in sizes),
                key=lambda s: s.missing,
            )
            assert abs(span.start - 15 / FPS) < 2.1 / FPS and abs(span.end - 25 / FPS) < 2.1 / FPS
    assert missing["without"] > max(LEAST, 2 * missing["with"])


def test_a_scan_follows_its_own_person():
    scan = actor_avatar.scan()
    marks = torch.as_tensor(scan.landmarks)
    found = forecast(marks, neutral_of(scan), actor_avatar.performance(actor_avatar.motions(24, seed=0)))
    assert np.abs(found.missing).mean() < 0.1 and found.usable.all()
