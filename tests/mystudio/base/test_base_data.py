"""Training data: equal samples for equal steps, and one sentence for data that does not fit."""

import zlib

import cv2
import numpy as np
import pytest

from mystudio.base.data import Mixture, Prefetcher
from mystudio.base.sources import ImageFolder, Rendered, Shards, open_source
from mystudio.errors import BadData


def _image(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "faces"
    (place / "more").mkdir(parents=True)
    for k in range(6):
        cv2.imwrite(str(place / ("more" if k > 3 else "") / f"{k}.png"), _image(k)[..., ::-1])
    (place / "readme.txt").write_text("no image")
    return place


@pytest.fixture
def shards(tmp_path):
    place = tmp_path / "actors"
    place.mkdir()
    rng = np.random.default_rng(0)
    for k, save in enumerate((np.savez, np.savez_compressed, np.savez)):
        images = np.stack([_image(100 + 10 * k + i) for i in range(4 + k)])
        save(place / f"{k}.npz", images=images, codes=rng.normal(size=(4 + k, 5)).astype(np.float16))
    return place


def test_a_folder_gives_its_images_in_a_fixed_order(folder):
    source = ImageFolder(folder, 16)
    assert len(source) == 6 and source.code_size == 0
    for k in range(6):
        image, code = source.get(k)
        assert np.array_equal(image, _image(k)) and code is None
    small, _ = ImageFolder(folder, 4).get(0)
    assert np.allclose(small, _image(0).reshape(4, 4, 4, 4, 3).mean((1, 3)), atol=0.51)


def test_shards_give_images_with_codes_mapped_or_read(shards):
    source = Shards(shards, 16)
    assert len(source) == 15 and source.code_size == 5
    row = 0
    for k in range(3):
        with np.load(shards / f"{k}.npz") as file:
            for image, code in zip(file["images"], file["codes"]):
                got, number = source.get(row)
                assert np.array_equal(got, image) and np.array_equal(number, code.astype(np.float32))
                row += 1
    assert isinstance(source._parts[0][0], np.memmap) and not isinstance(source._parts[1][0], np.memmap)


def test_the_same_step_gives_the_same_batch_and_other_steps_others(folder, shards):
    def mixture(seed=0):
        return Mixture([open_source(folder, 16), open_source(shards, 16)], [1, 2], seed=seed)

    first, again, later = mixture().batch(7, 12), mixture().batch(7, 12), mixture().batch(8, 12)
    assert np.array_equal(first.images, again.images) and np.array_equal(first.codes, again.codes)
    assert not np.array_equal(first.images, later.images)
    assert not np.array_equal(first.images, mixture(1).batch(7, 12).images)
    assert first.coded.sum() == first.coded_in_all and not first.codes[~first.coded].any()


def test_two_processes_share_a_batch_without_overlap(folder, shards):
    mixture = Mixture([open_source(folder, 16), open_source(shards, 16)])
    whole, parts = mixture.batch(3, 8), [mixture.batch(3, 8, rank, 2) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert np.array_equal(part.images, whole.images[rank::2]) and part.coded_in_all == whole.coded_in_all


def test_pairs_are_neighbours_of_one_source_and_nothing_else(folder, shards):
    mixture = Mixture([open_source(folder, 16), open_source(shards, 16)], [1, 2], paired=True)
    for step in range(40):
        plan, batch = mixture.plan(step, 12), mixture.batch(step, 12)
        last = sum(index == 14 for source, index, _ in plan if source)  # of 15 images: it has no partner
        assert len(set(batch.pairs.ravel())) == 2 * len(batch.pairs) and batch.coded_in_all == 8
        assert len(batch.pairs) == (8 - last) // 2
        for one, other in batch.pairs:
            assert plan[one][0] == plan[other][0] == 1 and plan[one][1] ^ 1 == plan[other][1]
            assert np.array_equal(batch.codes[other], mixture.sources[1].get(plan[other][1])[1])
    assert len(Mixture(mixture.sources, [1, 2]).batch(0, 12).pairs) == 0
    odd = Mixture([open_source(shards, 16)], paired=True)
    assert len(odd.batch(0, 7).pairs) == 3
    seen = {index for step in range(200) for _, index, _ in odd.plan(step, 8)}
    assert len(seen) == len(odd.sources[0])


def test_weights_and_flips_are_as_asked(folder, shards):
    mixture = Mixture([open_source(folder, 16), open_source(shards, 16)], [1, 3])
    plan = [row for step in range(100) for row in mixture.plan(step, 40)]
    assert abs(np.mean([s for s, _, _ in plan]) - 0.75) < 0.03 and mixture.coded_share == 0.75
    assert abs(np.mean([f for s, _, f in plan if s == 0]) - 0.5) < 0.05
    assert not any(f for s, _, f in plan if s == 1)  # a code says left and right
    assert {sum(s for s, _, _ in mixture.plan(step, 40)) for step in range(50)} == {30}
    assert {sum(s for s, _, _ in mixture.plan(step, 10)) for step in range(50)} == {7, 8}
    counts = np.bincount([i for s, i, _ in plan if s == 0], minlength=6)
    assert counts.min() > 0.7 * counts.mean()
    assert set(mixture.coded_only().sources) == {mixture.sources[1]}


def test_rendered_images_and_batches_made_ahead_are_the_same(folder):
    def draw(number):
        return _image(number), np.full(5, number % 7, np.float32)

    mixture = Mixture([Rendered(draw, 5), open_source(folder, 16)])
    prefetcher = Prefetcher(mixture, 6, 0, 1)
    for step in (0, 1, 2, 9, 10):
        direct, made = mixture.batch(step, 6), prefetcher.batch(step)
        assert np.array_equal(direct.images, made.images) and np.array_equal(direct.codes, made.codes)
    prefetcher.close()


def _hostile(place, kind):
    path = place / f"{kind}.png"
    good = cv2.imencode(".png", _image(0, 32))[1].tobytes()
    jpeg = cv2.imencode(".jpg", _image(0, 32))[1].tobytes()
    content = {
        "empty": b"",
        "text": b"not an image at all",
        "cut png": good[: len(good) // 2],
        "cut jpeg": jpeg[: len(jpeg) - 200],
        "wide": cv2.imencode(".png", _image(0, 32)[:20])[1].tobytes(),
        "small": cv2.imencode(".png", _image(0, 8))[1].tobytes(),
        "bomb": good[:16] + (90_000).to_bytes(4, "big") * 2 + good[24:],
        "lonely marker": b"\xff\xd8\xff\xe0",
    }[kind]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "cut png", "cut jpeg", "wide", "small", "bomb", "lonely marker"])
def test_an_odd_image_is_one_sentence(folder, kind):
    path = _hostile(folder, kind)
    with pytest.raises(BadData, match="expected") as error:
        ImageFolder(folder, 16)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_image_behind_a_good_header_is_one_sentence(tmp_path):
    data = bytearray(cv2.imencode(".png", _image(0, 32))[1].tobytes())
    end = 41 + int.from_bytes(data[33:37], "big")  # of the pixels, which stand between their kind and their checksum
    data[41:end] = bytes(end - 41)
    data[end : end + 4] = zlib.crc32(data[37:end]).to_bytes(4, "big")  # the chunk is whole, its content is not
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadData, match="decoded"):
        ImageFolder(tmp_path, 16).get(0)


def test_grey_transparent_and_deep_images_become_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((16, 16), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((16, 16, 4), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "c.png"), np.full((16, 16, 3), 90 * 257, np.uint16))
    source = ImageFolder(tmp_path, 16)
    for k in range(3):
        assert np.array_equal(source.get(k)[0], np.full((16, 16, 3), 90, np.uint8))


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((2, 16, 16, 3), np.float32), "codes": np.zeros((2, 5))},
        {"images": np.zeros((2, 16, 12, 3), np.uint8), "codes": np.zeros((2, 5))},
        {"images": np.zeros((2, 8, 8, 3), np.uint8), "codes": np.zeros((2, 5))},
        {"images": np.zeros((2, 16, 16, 3), np.uint8), "codes": np.zeros((3, 5))},
        {"images": np.zeros((2, 16, 16, 3), np.uint8), "codes": np.full((2, 5), np.nan)},
        {"images": np.zeros((2, 16, 16, 3), np.uint8)},
        {"images": np.array([None, 1], object), "codes": np.zeros((2, 5))},
    ],
)
def test_a_shard_that_does_not_fit_is_one_sentence(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadData, match="expected"):
        Shards(tmp_path / "a.npz", 16)


def test_missing_or_cut_data_is_one_sentence(tmp_path, folder, shards):
    data = (shards / "0.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty").mkdir()
    for place in ("cut.npz", "empty", "nowhere"):
        with pytest.raises(BadData, match="expected"):
            open_source(tmp_path / place, 16)
    for weights in ([1, -1], [0, 0], [1]):
        with pytest.raises(BadData, match="weight"):
            Mixture([open_source(folder, 16), open_source(shards, 16)], weights)
    with pytest.raises(BadData, match="codes"):
        Mixture([open_source(folder, 16)]).coded_only()
