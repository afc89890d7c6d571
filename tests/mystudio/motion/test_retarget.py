"""Keypoints, and the retargeting of a driver's motion to another face."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mystudio.motion import retarget as r
from mystudio.motion.performance import without_others
from mystudio.motion.retarget import RetargetSettings, find_neutral, neutral_face, normalise, retarget
from mystudio.types import Performance
from selfscan.face.headpose import canonical_head, euler, head_pose, rotation

EXACT = RetargetSettings(smooth=0.0)
STATISTICS = {"mouth": torch.tensor([[0.0] * 3, [0.2] * 3]), "iris": torch.tensor([[0.0] * 3, [0.2] * 3])}
UPPER_LIDS, LOWER_LIP = [159, 160, 158, 386, 385, 387], [14, 402, 178, 17, 314, 84]


def face_landmarks() -> np.ndarray:
    """The neutral, symmetric mean head [478, 3] where an aligned crop shows it."""
    return (0.33 * canonical_head() + (0.5, 0.48, 0)).astype(np.float32)


def faces(count: int, seed: int = 0) -> torch.Tensor:
    return 0.5 + 0.1 * torch.randn(count, 478, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def driver(performance: Performance, landmarks: np.ndarray, **changes) -> Performance:
    """The fixture's clip with other landmarks in its crops; by default every frame has a face."""
    seen = performance.observation
    count = len(landmarks)
    track = replace(seen.track, landmarks=seen.track.landmarks[:count], pose=seen.track.pose[:count],
                    score=np.ones(count, np.float32), valid=changes.get("valid", np.ones(count, bool)),
                    times=seen.track.times[:count], second_face=np.zeros(count, bool))  # fmt: skip
    alignment = replace(seen.alignment, crop_from_frame=seen.alignment.crop_from_frame[:count])
    presence = changes.get("presence", np.ones(count, np.float32))
    seen = replace(seen, track=track, alignment=alignment, landmarks=landmarks.astype(np.float32), presence=presence)
    return Performance(seen, performance.mouth[:count], performance.irises[:count])


def shaken(count: int, amount: float = 0.005, seed: int = 0) -> np.ndarray:
    return face_landmarks() + amount * np.random.default_rng(seed).standard_normal((count, 478, 3))


def test_66_keypoints_in_parts():
    assert len(r.KEYPOINTS) == len(set(r.KEYPOINTS)) == 66
    assert min(r.KEYPOINTS) >= 0 and max(r.KEYPOINTS) < 478
    assert r.PART_OF.tolist() == sorted(r.PART_OF.tolist())
    assert r.PART_OF.bincount().tolist() == [len(part) for part in r.KEYPOINT_PARTS.values()]
    marks = faces(2)
    assert torch.equal(r.keypoints_of(marks)[1, 11], marks[1, r.KEYPOINT_PARTS["right_brow"][0]])


def test_parts_are_mirror_images_of_each_other():
    for right, left in (("right_brow", "left_brow"), ("right_eye", "left_eye")):
        mirrored = canonical_head()[list(r.KEYPOINT_PARTS[left])] * (-1, 1, 1)
        assert np.abs(mirrored - canonical_head()[list(r.KEYPOINT_PARTS[right])]).max() < 0.03  # of the eyes' distance


def test_normalised_keypoints_do_not_move_with_the_face():
    marks = faces(3)
    shift = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    for offsets in (0.0, 0.5, 1.0):
        assert torch.allclose(normalise(marks + shift, offsets, 0.7), normalise(marks, offsets, 0.7), atol=1e-12)


def test_without_offsets_every_part_has_zero_mean():
    points = normalise(faces(3))
    for part in range(len(r.KEYPOINT_PARTS)):
        assert points[:, r.PART_OF == part].mean(1).abs().max() < 1e-12


def test_where_a_part_sits_counts_by_its_share():
    marks = faces(1)
    raised = marks.clone()
    raised[:, list(r.KEYPOINT_PARTS["left_brow"]), 1] -= 0.02
    for share in (0.0, 0.5, 1.0):
        change = (normalise(raised, share) - normalise(marks, share))[0]
        brow = r.PART_OF == list(r.KEYPOINT_PARTS).index("left_brow")
        assert torch.allclose(change[brow, 1], torch.full((5,), -0.02 * share, dtype=torch.float64), atol=1e-12)
        assert change[~brow].abs().max() < 1e-12


def test_full_offsets_are_plain_coordinates_from_the_stable_points():
    marks = faces(2)
    expected = r.keypoints_of(marks) - marks[:, [168, 6, 2]].mean(1, keepdim=True)
    assert torch.allclose(normalise(marks, 1.0), expected, atol=1e-12)
    assert torch.allclose(normalise(marks, 1.0, depth=0.25), expected * torch.tensor([1, 1, 0.25]), atol=1e-12)


def test_part_scale_is_the_root_mean_square_size():
    points = r.keypoints_of(faces(1))[0]
    for part in range(len(r.KEYPOINT_PARTS)):
        mine = points[r.PART_OF == part]
        size = (mine - mine.mean(0)).square().sum(1).mean().sqrt()
        assert torch.allclose(r.part_scale(points)[r.PART_OF == part], size)
    assert torch.allclose(r.part_scale(1.7 * points), 1.7 * r.part_scale(points))


def test_relative_motion_is_the_same_on_a_larger_face():
    marks, neutral = faces(4), faces(1, seed=1)[0]
    motion = r.relative_motion(marks, neutral)
    assert torch.allclose(r.relative_motion(1.3 * marks + 0.1, 1.3 * neutral + 0.1), motion, atol=1e-12)
    assert r.relative_motion(neutral[None], neutral).abs().max() < 1e-12


def planted(expressions: int = 15) -> tuple[np.ndarray, int]:
    """A clip whose first frames smile, speak, blink and turn; one frame in the middle is neutral."""
    noise = np.random.default_rng(3)
    marks = shaken(expressions, 0.0002)
    marks[:, UPPER_LIDS, 1] -= 0.004
    neutral = 9
    for k in range(expressions):
        if k == neutral:
            continue
        marks[k, LOWER_LIP, 1] += noise.uniform(0.02, 0.08)
        marks[k, [61, 291], 0] += np.array([-1, 1]) * noise.uniform(0.0, 0.03)
        marks[k, list(r.KEYPOINT_PARTS["left_brow"]), 1] += noise.uniform(-0.02, 0.02)
        if k % 4 == 0:
            marks[k, UPPER_LIDS, 1] += 0.03
    marks[neutral, 14, :2] = marks[neutral, 13, :2]
    return marks, neutral


def test_neutral_is_found_wherever_it_is():
    marks, neutral = planted()
    usable = np.ones(len(marks), bool)
    assert neutral != 0 and find_neutral(marks, usable) == neutral
    order = np.random.default_rng(0).permutation(len(marks))
    assert order[find_neutral(marks[order], usable)] == neutral


def test_neutral_is_a_usable_frame():
    marks, neutral = planted()
    usable = np.ones(len(marks), bool)
    usable[neutral] = False
    assert usable[find_neutral(marks, usable)]
    assert find_neutral(marks, np.zeros(len(marks), bool)) == neutral  # no usable frame: all frames are used


def test_neutral_is_no_blink():
    marks = shaken(12, 0.0002)
    marks[:7, UPPER_LIDS, 1] += 0.0001
    blinks = [2, 3, 4]
    marks[blinks] = marks[8]  # the most typical face, except for the eyelids
    for k in blinks:
        marks[np.ix_([k], UPPER_LIDS, [1])] += 0.035
    assert find_neutral(marks, np.ones(12, bool)) not in blinks


def test_neutral_is_no_smile_even_of_someone_who_smiles_nearly_always():
    marks = shaken(12, 0.0002)
    smiling = np.arange(12) != 7
    marks[np.ix_(smiling, [61, 78], [0])] -= 0.03
    marks[np.ix_(smiling, [291, 308], [0])] += 0.03
    marks[np.ix_(smiling, [61, 291, 78, 308], [1])] -= 0.02
    assert find_neutral(marks, np.ones(12, bool)) == 7


def test_neutral_face_is_the_mean_of_the_most_neutral_frames():
    marks, usable = shaken(100), np.ones(100, bool)
    order = np.argsort(r.neutral_scores(marks, usable))
    for frames in (1, 3, 5, 50):  # never more than a twentieth
        expected = torch.as_tensor(marks[order[: min(frames, 5)]].mean(0)).float()
        assert torch.allclose(neutral_face(marks, usable, frames), expected, atol=1e-6)


def test_the_neutral_face_of_a_scan_comes_from_the_whole_clip():
    marks, neutral = planted()
    chosen = np.delete(marks, neutral, 0)[:4]
    scan = SimpleNamespace(landmarks=chosen, clip_landmarks=marks)
    assert torch.equal(r.neutral_of(scan), r.frontal(torch.as_tensor(marks[neutral]).float()))
    older = SimpleNamespace(landmarks=chosen, clip_landmarks=marks[:0])
    assert torch.equal(r.neutral_of(older), r.frontal(neutral_face(chosen, np.ones(4, bool))))
    pitch, yaw = np.degrees(euler(head_pose(r.neutral_of(scan).double().numpy()[None])))[0, :2]
    assert abs(pitch) < 0.5 and abs(yaw) < 0.5


def test_neutral_face_of_a_short_clip_is_its_most_neutral_frame():
    marks, neutral = planted()
    usable = np.ones(len(marks), bool)
    assert torch.equal(neutral_face(marks, usable), torch.as_tensor(marks[neutral]).float())
    usable[neutral] = False
    marks[neutral] = np.nan
    assert usable[find_neutral(marks, usable)] and neutral_face(marks, usable).isfinite().all()
    assert neutral_face(shaken(3), np.zeros(3, bool)).isfinite().all()  # no usable frame: there is still a result


def test_absolute_motion_of_oneself_changes_nothing(performance):
    marks = shaken(6)
    mine = torch.as_tensor(marks[2], dtype=torch.float32)
    settings = replace(EXACT, motion="absolute")
    motion = retarget(driver(performance, marks), mine, STATISTICS, settings, driver_neutral=mine)
    expected = normalise(torch.as_tensor(marks, dtype=torch.float32), settings.part_offsets, settings.depth)
    assert torch.allclose(motion.keypoints, expected, atol=1e-6)


def test_relative_motion_of_oneself_changes_nothing(performance):
    marks = shaken(6)
    mine = torch.as_tensor(marks[2], dtype=torch.float32)
    motion = retarget(driver(performance, marks), mine, STATISTICS, EXACT, driver_neutral=mine)
    expected = normalise(torch.as_tensor(marks, dtype=torch.float32), EXACT.part_offsets, EXACT.depth)
    assert torch.allclose(motion.keypoints, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["as seen", "frontal"])
def test_a_neutral_driver_makes_the_avatar_neutral(performance, kind):
    theirs, mine = (torch.as_tensor(shaken(1, x, seed)[0], dtype=torch.float32) for x, seed in ((0.005, 1), (0.02, 2)))
    straight = r.frontal if kind == "frontal" else lambda face: face
    clip = np.repeat(straight(theirs)[None].numpy(), 5, 0)
    settings = RetargetSettings(neutral=kind)
    motion = retarget(driver(performance, clip), mine, STATISTICS, settings)
    neutral = normalise(straight(mine), settings.part_offsets, settings.depth)
    assert (motion.keypoints - neutral).abs().max() < 1e-6
    assert (motion.change - r.relative_motion(straight(mine), mine)).abs().max() < 1e-5
    assert (motion.measures - r.measures(straight(mine)[None])).abs()[:, 1:].max() < 1e-4


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_motion_is_scaled_by_the_ratio_of_part_sizes(performance, kind):
    mine = torch.as_tensor(face_landmarks())
    marks = shaken(5)
    settings = replace(EXACT, motion=kind)
    theirs = torch.as_tensor(marks[0], dtype=torch.float32)
    small = retarget(driver(performance, marks), mine, STATISTICS, settings, theirs)
    larger = 1.25 * (marks - 0.5) + 0.5  # the same motion on a face 1.25 times as large
    large = retarget(driver(performance, larger), mine, STATISTICS, settings, 1.25 * (theirs - 0.5) + 0.5)
    assert torch.allclose(small.keypoints, large.keypoints, atol=1e-6)
    assert torch.allclose(small.change, large.change, atol=1e-5)


def test_a_wide_mouth_moves_more_than_a_narrow_one(performance):
    mine = face_landmarks()
    lips = list(r.KEYPOINT_PARTS["inner_lips"])
    mine[lips] = mine[lips].mean(0) + 2 * (mine[lips] - mine[lips].mean(0))
    marks = np.repeat(face_landmarks()[None], 2, 0)
    marks[1, 14, 1] += 0.03
    theirs = torch.as_tensor(marks[0])
    motion = retarget(driver(performance, marks), torch.as_tensor(mine), STATISTICS,
                      replace(EXACT, part_offsets=1.0), theirs)  # fmt: skip
    change = motion.keypoints[1] - motion.keypoints[0]
    assert float(change[r.KEYPOINTS.index(14), 1]) == pytest.approx(2 * 0.03, rel=1e-4)


def test_frames_without_a_face_are_marked_and_do_not_disturb(performance):
    marks = shaken(7)
    valid, presence = np.ones(7, bool), np.ones(7, np.float32)
    valid[2], presence[5] = False, 0.1
    mine = torch.as_tensor(face_landmarks())
    motion = retarget(driver(performance, marks, valid=valid, presence=presence), mine, STATISTICS)
    assert motion.valid.tolist() == [True, True, False, True, True, False, True]
    wild = marks.copy()
    wild[[2, 5]] += 0.3 * np.random.default_rng(5).standard_normal((2, 478, 3))
    other = retarget(driver(performance, wild, valid=valid, presence=presence), mine, STATISTICS)
    assert torch.allclose(motion.keypoints[motion.valid], other.keypoints[motion.valid], atol=1e-6)


def test_smoothing_lowers_the_jitter_and_zero_leaves_it(performance):
    marks, mine = shaken(12), torch.as_tensor(face_landmarks())

    def jitter(sigma):
        found = retarget(driver(performance, marks), mine, STATISTICS, replace(EXACT, smooth=sigma), mine)
        return float(found.keypoints.diff(2, dim=0).square().mean())

    assert jitter(1.5) < 0.1 * jitter(0.0)


def test_half_the_keypoints_weigh_nothing(performance):
    mine = torch.as_tensor(face_landmarks())
    motion = retarget(driver(performance, shaken(2)), mine, STATISTICS, replace(EXACT, keypoints="half"))
    assert motion.weights.sum() == 33
    assert torch.equal(motion.times, torch.as_tensor(performance.observation.track.times[:2]))
    assert len(motion) == 2


def turned(face: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    middle = face.mean(0)
    return ((face - middle) @ rotation(np.array([yaw, pitch, 0.0])).T + middle).astype(np.float32)


def test_a_frontal_face_looks_into_the_camera_and_keeps_its_shape():
    face = torch.as_tensor(turned(face_landmarks(), 0.3, -0.2))
    straight = r.frontal(face)
    assert np.abs(euler(head_pose(straight.numpy()))).max() < 1e-3
    apart = [torch.pdist(x.double()) for x in (straight, face)]
    torch.testing.assert_close(*apart, atol=1e-5, rtol=1e-4)


def test_neutral_faces_that_look_aside_turn_the_avatar_by_nothing(performance):
    """The driver's neutral frames look down, the avatar's aside: a frontal driver gives a frontal avatar."""
    mine = turned(face_landmarks(), 0.15, 0.0)
    clip = np.stack([turned(face_landmarks(), 0.0, 0.12)] * 5 + [face_landmarks()])
    given = dict(
        performance=driver(performance, clip),
        neutral=torch.as_tensor(mine),
        statistics=STATISTICS,
        driver_neutral=torch.as_tensor(clip[0]),
    )
    aim = normalise(torch.as_tensor(face_landmarks()), EXACT.part_offsets, EXACT.depth)
    far = {}
    for kind in ("as seen", "frontal"):
        motion = retarget(settings=replace(EXACT, neutral=kind), **given)
        far[kind] = float((motion.keypoints[-1] - aim).norm())
    assert far["frontal"] < 0.02 * far["as seen"]


def test_what_shuts_on_the_driver_shuts_on_the_avatar():
    mine, theirs = torch.tensor([0.02, 0.8, 0.6, 0.30, 0.35]), torch.tensor([0.05, 0.9, 0.5, 0.40, 0.30])
    clip = torch.stack([theirs, theirs, theirs])
    clip[1, r.MEASURES.index("eyes_open")] = 0.0
    clip[2, r.MEASURES.index("mouth_open")] = 0.0
    wanted = r.wanted_measures(clip, mine, theirs)
    assert wanted[1, r.MEASURES.index("eyes_open")] == 0 and wanted[2, r.MEASURES.index("mouth_open")] == 0
    others = [k for k, name in enumerate(r.MEASURES) if name != "mouth_open"]
    torch.testing.assert_close(wanted[0, others], mine[others])
    assert torch.equal(r.wanted_measures(clip, mine, theirs, "absolute"), clip)


def cut_at(played: Performance, index: int, other: np.ndarray | None = None) -> Performance:
    """The performance with a cut before frame ``index``."""
    track = replace(played.observation.track, cuts=np.array([[index, index]]))
    return replace(played, observation=replace(played.observation, track=track), other=other)


def test_nothing_of_one_shot_reaches_the_next(performance):
    """Each shot of a cut clip is retargeted as if it were a clip of its own."""
    marks = np.concatenate([shaken(6), shaken(6, seed=1) + (0.03, -0.02, 0)])
    neutral = torch.as_tensor(face_landmarks())
    settings = RetargetSettings(smooth=1.5)
    whole = retarget(cut_at(driver(performance, marks), 6), neutral, STATISTICS, settings, driver_neutral=neutral)
    for shot in (slice(0, 6), slice(6, 12)):
        alone = retarget(driver(performance, marks[shot]), neutral, STATISTICS, settings, driver_neutral=neutral)
        assert torch.allclose(whole.keypoints[shot], alone.keypoints, atol=1e-6)
        assert torch.allclose(whole.change[shot], alone.change, atol=1e-6)
    assert whole.shots == (slice(0, 6), slice(6, 12))
    uncut = retarget(driver(performance, marks), neutral, STATISTICS, settings, driver_neutral=neutral)
    assert not torch.allclose(uncut.keypoints[5], whole.keypoints[5], atol=1e-4)


def test_neutral_faces_are_of_the_shots_person(performance):
    """Two people without motion: each has its own neutral face, however short the shots are."""
    one, two = face_landmarks(), face_landmarks() * (1, 1.1, 1)
    marks, other = np.stack([one] * 8 + [two] * 4), np.arange(12) >= 8
    first, second = r.neutral_faces(cut_at(driver(performance, marks), 8, other))
    assert torch.allclose(first, torch.as_tensor(one)) and torch.allclose(
        second, torch.as_tensor(two, dtype=torch.float32)
    )
    same = r.neutral_faces(cut_at(driver(performance, marks), 8))  # one person: short shots share a neutral face
    assert torch.equal(same[0], same[1])


def test_other_persons_can_be_left_out(performance):
    marks, other = shaken(12), np.arange(12) >= 8
    left = without_others(cut_at(driver(performance, marks), 8, other))
    assert r.usable_frames(left).tolist() == (~other).tolist()
    assert without_others(driver(performance, marks)).observation.track.valid.all()
