"""What one-shot engines are trained on: triples with their truth, and measurements that are kept."""

import numpy as np
import oneshot_data
import pytest
import torch

from mystudio.actors.dataset import code_of
from mystudio.actors.factors import MOTION
from mystudio.actors.motion import frame_from_factors
from mystudio.base.groups import open_groups
from mystudio.bases import Base, find_base
from mystudio.errors import BadArtifact, BadData
from mystudio.motion.retarget import relative_motion
from mystudio.oneshot.data import HELD, Pool, open_pool
from mystudio.oneshot.measure import Measured, encoder_of, measured_groups
from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.io.pixels import to_tensor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oneshot")
    oneshot_data.write_groups(folder / "groups")
    oneshot_data.write_portraits(folder / "portraits")
    return folder


@pytest.fixture(scope="module")
def pool(place) -> Pool:
    return oneshot_data.pool_of(place)


def test_motion_is_measured_from_the_persons_own_face_at_rest(place, pool):
    groups, base = open_groups(place / "groups", 128), find_base("people128")
    found = measured_groups(groups, place / "groups", base, CPU, rest=oneshot_data.rest)
    image, code = groups.get(1, 0, 1)
    both = to_tensor(np.stack([image, oneshot_data.rest(code, 128)]))
    marks, _ = crop_landmarks(load_facemesh(), both)
    row = (1 * 2 + 0) * 2 + 1
    assert torch.allclose(found.landmarks[row], marks[0], atol=1e-5)
    assert torch.allclose(found.motion[row], relative_motion(marks[:1], marks[1])[0], atol=1e-4)
    assert torch.allclose(found.appearance[row], encoder_of(base)[0].appearance(both)[0], atol=1e-4)
    assert (found.presence > 0.9).all()  # the pictures show faces


def test_measurements_are_kept_and_a_damaged_file_is_made_again(place, pool):
    (file,) = (place / "groups").glob("measured-*.safetensors")
    groups, base = open_groups(place / "groups", 128), find_base("people128")

    def never(code, size):
        raise AssertionError("drawn again")

    kept = measured_groups(groups, place / "groups", base, CPU, rest=never)
    kept = {name: value.clone() for name, value in vars(kept).items()}  # it is a view of the file
    file.write_bytes(file.read_bytes()[:-50])
    again = measured_groups(groups, place / "groups", base, CPU, rest=oneshot_data.rest)
    assert all(torch.equal(vars(again)[name], value) for name, value in kept.items())


def test_rows_of_a_batch_are_true_triples(place, pool):
    codes = {tuple(code_of(3, k, 2, people=2)[MOTION]): k % 2 for k in range(8)}
    assert len(codes) == 4  # two motions a group
    groups = open_groups(place / "groups", 128)
    pictures = {groups.source.get(k)[0].tobytes(): k for k in range(8)}

    def number(image):
        return pictures[((image + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy().tobytes()]

    for kind in ("same", "self", "cross"):
        batch = Pool(pool_sets(pool)[:1], seed=5).batch(kind, 3, 12, CPU)
        for k in range(12):
            s, d, t = (number(faces.images[k]) for faces in (batch.source, batch.driver, batch.truth))
            assert t // 2 == s // 2 and t % 2 == d % 2 and t // 4 == d // 4  # the source's person, the driver's motion
            assert int(batch.person[k]) == s // 2 and bool(batch.exact[k]) and bool(batch.played[k])
            assert (s == d) == (kind == "same") and (s // 2 == d // 2) == (kind != "cross")
            expression, pose = frame_from_factors(groups.codes.reshape(8, -1)[d, MOTION].astype(float))
            assert np.allclose(batch.expression[k], expression, atol=1e-6) and np.allclose(batch.pose[k], pose)


def pool_sets(pool):
    return [(s.images, s.measured) for s in pool._sets]


def test_portraits_are_their_own_truth_and_have_none_when_driven(pool):
    alone = Pool(pool_sets(pool)[:1], pool_sets(pool)[1:], share=1.0)
    same, cross = alone.batch("same", 0, 6, CPU), alone.batch("cross", 0, 6, CPU)
    assert same.exact.all() and torch.equal(same.source.images, same.truth.images) and not same.played.any()
    assert not cross.exact.any() and cross.played.all() and (cross.person >= 4).all()
    assert alone.people == 4 + oneshot_data.PORTRAITS and alone.resolution == 128
    assert not torch.equal(cross.driver.images, cross.source.images)


def test_step_and_seed_determine_a_batch(pool):
    first, again, other = (pool.batch("cross", step, 4, CPU) for step in (7, 7, 8))
    assert torch.equal(first.source.images, again.source.images) and torch.equal(first.person, again.person)
    assert not torch.equal(first.source.images, other.source.images)


def test_held_out_people_are_never_trained_on(place):
    class Many:
        """Groups in number, without pictures."""

        people = motions = 2

        def __len__(self):
            return 2 * HELD

    from mystudio.oneshot import data

    images = data._Set(Many(), Measured(*(torch.zeros(8 * HELD, 1) for _ in range(4))))
    trained, held = images.rows(False), images.rows(True)
    assert len(held) == 2 and not {*trained.tolist()} & {*held.tolist()} and len(trained) + len(held) == 2 * HELD


def test_data_without_groups_are_refused(place):
    with pytest.raises(BadData, match="--grid 4x4"):
        open_pool([place / "portraits"], find_base("people128"))
    with pytest.raises(BadData, match="expected JPEG or PNG"):
        open_pool([place / "nothing"], find_base("people128"))


def test_a_base_without_an_encoder_is_refused(place, tmp_path):
    path = tmp_path / "bare.safetensors"
    path.write_bytes(find_base("people128").path.read_bytes())
    with pytest.raises(BadArtifact, match="train-encoder"):
        open_pool([place / "groups"], Base("bare", path), rest=oneshot_data.rest)
