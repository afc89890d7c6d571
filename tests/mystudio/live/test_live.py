"""The live avatar uses no future frames, loses no frame, and is close to the start codes of a take."""

import cv2
import numpy as np
import pytest
import torch
from live_person import FPS, avatar, framed, frames, portraits, room

from mystudio.engines.personal.problem import SolveSettings
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.settings import ReenactSettings
from mystudio.engines.personal.start import StartCodes
from mystudio.engines.personal.state import AXES, state_of
from mystudio.evaluation.metrics import shake
from mystudio.live.follow import Live, LiveSettings
from mystudio.live.stream import Pace, play
from mystudio.motion import performance as perform
from mystudio.motion.retarget import RetargetSettings, retarget
from mystudio.types import Outcome
from selfscan.face.align import crop, rescale
from selfscan.face.facemesh import load_facemesh
from selfscan.face.observe import measure
from selfscan.io import video


def follow(timed, **settings):
    live = Live(avatar(), ReenactSettings(), LiveSettings(**settings))
    try:
        return [live(frame, time) for time, frame in timed]
    finally:
        live.close()


def codes_of(shown) -> torch.Tensor:
    return torch.cat([s.codes[AXES][:, 0] for s in shown])


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: sums over several threads differ in the last bits, and parallel stages share the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_first_frames_do_not_depend_on_what_follows():
    head = frames(16)[:8]
    tails = ([(i / FPS, room()) for i in range(8, 14)], [(i / FPS, framed(portraits(16)[0])) for i in range(8, 14)])
    runs = []
    for tail in tails:  # with threads: reading ahead must not change the result
        live, timed = Live(avatar(), ReenactSettings()), (pair for pair in head + tail)
        runs.append(list(play(timed, live, Pace(), drop=False, paced=False)))
        live.close()
    alone = follow(head)
    for a, b, c in zip(*runs, alone):
        assert torch.equal(a.codes[AXES], b.codes[AXES]) and torch.equal(a.codes[AXES], c.codes[AXES])
        assert np.array_equal(a.picture, b.picture) and np.array_equal(a.picture, c.picture)
        assert a.outcome == b.outcome == Outcome.FOLLOWED
    assert not torch.equal(runs[0][-1].codes[AXES], runs[1][-1].codes[AXES])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds of lively motion."""
    path, timed = tmp_path_factory.mktemp("live") / "driver.mp4", frames(44)
    video.write(path, [frame for _, frame in timed], [time for time, _ in timed], crf=4)
    return path


def start_codes(clip, sigma: float, smooth: float) -> torch.Tensor:
    """The codes that a take of the clip starts from, [T, K]."""
    person, played = avatar(), perform.perform(clip, sigma=sigma)
    grey = {name: torch.tensor([[0.0] * 3, [0.2] * 3]) for name in ("mouth", "iris")}
    motion = retarget(played, person.neutral, grey, RetargetSettings(smooth=smooth))
    start = StartCodes(
        Regressor.load(person.state.regressor), state_of(person).space, person.state.anchor_keypoints, 0.7
    )
    with torch.no_grad():
        return start(motion.change, motion.measures)


def test_without_smoothing_the_last_code_is_the_one_a_take_starts_from(clip):
    """At the last frame both used the same frames, so crops, landmarks, neutral faces and codes must agree."""
    online = codes_of(follow(video.read(clip), crop=0.0, rest=0.0, ease=1e-9))
    offline = start_codes(clip, sigma=0.0, smooth=0.0)
    torch.testing.assert_close(online[-1], offline[-1], atol=1e-3, rtol=1e-3)


def test_codes_are_close_to_those_a_take_starts_from(clip):
    """A take differs: it smooths with future frames and uses the final neutral face from the start."""
    online, offline = codes_of(follow(video.read(clip)))[FPS:], start_codes(clip, sigma=2.0, smooth=0.7)[FPS:]
    assert (online - offline).square().mean() < 0.3 * offline.var(0).mean()
    assert torch.corrcoef(torch.stack([online.flatten(), offline.flatten()]))[0, 1] > 0.85


def test_a_face_at_rest_shakes_less_than_it_would_unfiltered():
    rng = np.random.default_rng(0)
    still = framed(portraits(16)[0]).astype(float)
    timed = [(i / FPS, (still + rng.normal(0, 6, still.shape)).clip(0, 255).astype(np.uint8)) for i in range(24)]
    mesh = load_facemesh()

    def unrest(shown):
        codes = codes_of(shown)[8:]
        faces = measure(mesh, np.stack([s.picture[:, 256:] for s in shown[8:]]))[0]
        return (codes[2:] - 2 * codes[1:-1] + codes[:-2]).square().mean(), np.nanmean(shake(faces, np.ones(16, bool)))

    filtered, raw = unrest(follow(timed)), unrest(follow(timed, rest=0.0))
    assert filtered[0] < 0.5 * raw[0] and filtered[1] < raw[1]


def test_frames_without_a_face_are_held_and_marked():
    timed = frames(16)
    gone = (0, 1, 8, 9, 10)
    timed = [(time, room() if i in gone else frame) for i, (time, frame) in enumerate(timed)]
    live = Live(avatar(), ReenactSettings())
    followed = [live.follow(frame, time) for time, frame in timed]
    shown = [live.draw(f) for f in followed]
    live.close()
    assert [s.outcome for s in shown] == [Outcome.NO_FACE if i in gone else Outcome.FOLLOWED for i in range(16)]
    assert [s.time for s in shown] == [time for time, _ in timed]
    codes = codes_of(shown)
    assert torch.equal(codes[0], codes[1]) and all(torch.equal(codes[i], codes[7]) for i in (8, 9, 10))
    for i, (s, f) in enumerate(zip(shown, followed)):
        assert s.picture.shape == (256, 512, 3)
        unmarked = crop(f.frame, rescale(f.crop_from_frame, 1.0), 256)
        assert np.array_equal(s.picture[:, :256], unmarked) == (i not in gone)


def test_at_first_the_avatar_is_at_rest():
    """Before the first detected face, the avatar shows its neutral face and not the mean of its training data."""
    person = avatar()
    shown = follow([(0.0, room())])[0]
    drawn = measure(load_facemesh(), shown.picture[None, :, 256:])[0][0]
    spread = np.linalg.norm(person.state.anchor_keypoints.numpy() - person.neutral.numpy(), axis=-1).mean(1)
    assert np.linalg.norm(drawn - person.neutral.numpy(), axis=-1).mean() < np.median(spread)


def test_after_a_cut_everything_is_as_in_a_new_session():
    """The picture is mirrored and enlarged at the cut; a session that starts there shows the same codes."""
    head = frames(12)[:6]
    scale = [[1.25, 0, 0], [0, 1.25, 0]]
    tail = []
    for time, image in frames(12)[6:]:
        height, width = image.shape[:2]
        matrix = np.array(scale) + [[0, 0, -0.2 * width], [0, 0, -0.1 * height]]
        tail.append((time, cv2.warpAffine(np.ascontiguousarray(image[:, ::-1]), matrix, (width, height))))
    whole, alone = follow(head + tail), follow(tail)
    assert torch.equal(codes_of(whole[6:]), codes_of(alone))
    assert all(shown.outcome == Outcome.FOLLOWED for shown in whole)


def test_asking_for_a_new_neutral_face_takes_the_present_one():
    """A driver with a neutral face leaves the avatar at its neutral face."""
    timed = frames(24)
    as_seen = ReenactSettings(RetargetSettings(neutral="as seen"), SolveSettings(match=0.0))
    live = Live(avatar(), as_seen, LiveSettings(rest=0.0))
    rest = live(room(), -1.0).codes[AXES][:, 0]
    before = [live(frame, time) for time, frame in timed][-1].codes[AXES][:, 0]
    live.forget()
    after = live(timed[-1][1], 1.0).codes[AXES][:, 0]
    live.close()
    assert (before - rest).norm() > 1
    torch.testing.assert_close(after, rest, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rate,size", [(None, 256), (1e-3, 256), (1e9, 64)])
def test_the_size_is_halved_until_the_machine_draws_fast_enough(rate, size):
    (shown,) = follow(frames(1), rate=rate)
    assert shown.picture.shape == (size, 2 * size, 3)


@pytest.mark.parametrize("size, drawn", [(64, 64), (80, 128), (None, 128), (300, 128)])
def test_no_more_pixels_are_drawn_than_are_shown(size, drawn):
    seen = []
    hooks = [
        block.torgb.register_forward_hook(lambda layer, given, made: seen.append(made.shape[-1]))
        for block in avatar().generator.synthesis.blocks()
    ]
    try:
        (shown,) = follow(frames(1), size=size)
    finally:
        for hook in hooks:
            hook.remove()
    assert max(seen) == drawn and avatar().generator.resolution == 128
    assert shown.picture.shape == (size or 256, 2 * (size or 256), 3)
