"""Winks: images of them made from a scan's own, and anchors that tell the two sides apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from actor_avatar import CONSENT, person

from mystudio.actors.factors import MOTION_NAMES
from mystudio.base.encoder import WINK_LENGTH, encode, load_encoder, wink_direction, wink_of
from mystudio.bases import find_base
from mystudio.engines.personal.anchors import PersonalEncoder
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.winks import LEAST, with_winks
from mystudio.motion.retarget import relative_motion
from selfscan.face.facemesh import load_facemesh
from selfscan.face.landmarks import KEYPOINTS, LID_PAIRS
from selfscan.face.measures import measures, side_measures
from selfscan.io.pixels import to_uint8
from selfscan.types import Coverage, Scan

BLINK, REST = 2, 3  # rows of the scan


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Eight images: a face at rest in slightly different poses, and a blink."""
    motion = torch.zeros(8, 26)
    motion[:, MOTION_NAMES.index("yaw")] = torch.linspace(-0.4, 0.4, 8)
    motion[BLINK, MOTION_NAMES.index("eyeBlink")] = 2.2
    images, marks = person(motion)
    marks = marks.numpy()
    return Scan(to_uint8(images), marks, 10 * np.arange(8), np.ones(8, np.float32), {}, Coverage(measures(marks), {}),
                CONSENT, "all")  # fmt: skip


@pytest.fixture(scope="module")
def more(scan: Scan) -> Scan:
    return with_winks(scan, load_facemesh())


@pytest.fixture(scope="module")
def encoder():
    path = find_base("people128").companion("encoder")
    assert path is not None
    return load_encoder(path)


def test_a_blink_gives_a_wink_of_each_side(scan, more):
    count = len(scan)
    assert np.array_equal(more.images[:count], scan.images) and np.array_equal(more.landmarks[:count], scan.landmarks)
    assert len(more) == count + 2 == len(more.frame_index) == len(more.quality)
    came = [int(np.flatnonzero(scan.frame_index == index)[0]) for index in more.frame_index[count:]]
    change = side_measures(more.landmarks[count:])["wink"] - side_measures(scan.landmarks[came])["wink"]
    assert change[0] < -LEAST and change[1] > LEAST  # the right eye, then the left one
    whole = measures(scan.landmarks[came])["eyes_open"] - measures(scan.landmarks[[BLINK]])["eyes_open"]
    assert (abs(change) > 0.5 * whole).all()


def test_only_one_eye_changes(scan, more):
    for image, index in zip(more.images[len(scan) :], more.frame_index[len(scan) :]):
        came = int(np.flatnonzero(scan.frame_index == index)[0])
        changed = abs(image.astype(int) - scan.images[came]).max(-1) > 0
        rows, columns = np.nonzero(changed)
        assert 0 < changed.mean() < 0.06
        middle = 128 * scan.landmarks[came, 168, 0]
        assert columns.max() < middle + 8 or columns.min() > middle - 8  # one side, but for the bridge of the nose
        assert rows.max() < 128 * scan.landmarks[came, 4, 1]  # above the tip of the nose


def test_a_scan_without_a_blink_stays(scan):
    rest = [row for row in range(8) if row != BLINK]
    names = ("images", "landmarks", "frame_index", "quality")
    still = replace(scan, **{name: getattr(scan, name)[rest] for name in names})
    assert with_winks(still, load_facemesh()) is still


@pytest.mark.parametrize("side, sign", [(0, -1), (1, 1)])
def test_a_wink_is_signed_by_the_persons_side(side, sign):
    motion = torch.zeros(2, 66, 3)
    for eye, pairs in enumerate(LID_PAIRS):
        for upper, _ in pairs:
            if upper in KEYPOINTS:  # an upper lid that closes goes down
                motion[: 1 if eye != side else 2, KEYPOINTS.index(upper), 1] = 0.03
    both, one = wink_of(motion)[:, 0]
    assert abs(both) < 1e-6 and sign * one > 0.5


def test_anchors_of_two_winks_are_about_as_far_apart_as_a_blink_and_open_eyes(scan, more, encoder):
    neutral, marks = torch.as_tensor(scan.landmarks[REST]), torch.as_tensor(more.landmarks)
    w = encode(encoder, torch.zeros(len(more), 3, 64, 64), marks, neutral, winks=True) / encoder.spread
    apart, blink = ((w[a] - w[b]).square().mean().sqrt() for a, b in ((-1, -2), (BLINK, REST)))
    assert apart > 0.7 * blink
    look = torch.zeros(1, len(encoder.look.bias))
    assert 0 < (wink_direction(encoder, look) / encoder.spread).square().mean().sqrt() < WINK_LENGTH + 1e-5


def test_the_persons_encoder_gives_the_anchors_and_knows_the_scans_winks_alone(scan, more, encoder):
    neutral, marks = torch.as_tensor(scan.landmarks[REST]), torch.as_tensor(more.landmarks)
    images = torch.zeros(len(more), 3, 64, 64)
    space = AnchorSpace.of(encode(encoder, images, marks, neutral, winks=True), 7)
    made = PersonalEncoder.of(encoder, images, marks, neutral, space, 6, winks=True)
    motion = relative_motion(marks, neutral)
    torch.testing.assert_close(made(motion), space.codes, atol=1e-2, rtol=1e-2)
    assert made.winks[0] < -0.5 and made.winks[1] > 0.5
    few = AnchorSpace.of(encode(encoder, images[:8], marks[:8], neutral, winks=True), 7)
    shy = PersonalEncoder.of(encoder, images[:8], marks[:8], neutral, few, 6, winks=True)
    assert shy.winks[0] > 0.5 * made.winks[0]  # no image shows a wink of the right eye


def test_an_encoder_of_an_older_version_opens_without_winks(scan, encoder):
    images, marks = torch.zeros(8, 3, 64, 64), torch.as_tensor(scan.landmarks)
    space = AnchorSpace.of(encode(encoder, images, marks, marks[REST], winks=True), 7)
    net = Regressor(198, space.rank, 4)
    net.person = PersonalEncoder.of(encoder, images, marks, marks[REST], space, 6, winks=True)
    older = {k: v for k, v in net.state_dict().items() if not k.startswith("person.wink")}
    person_ = Regressor.load(older).person
    assert person_ is not None and not person_.wink.any()
    motion = relative_motion(marks, marks[REST])
    torch.testing.assert_close(Regressor.load(net.state_dict()).code(motion), net.code(motion))
