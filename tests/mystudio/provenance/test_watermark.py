"""The watermark: robust to usual processing, no false positives, never a wrong payload."""

import itertools

import cv2
import numpy as np
import pytest

from mystudio.bench import marking
from mystudio.bench.marking import PAYLOAD, bit_errors, compressed, cropped, scaled, through, toned
from mystudio.errors import StudioError
from mystudio.provenance.watermark import Evidence, WatermarkSettings, detect, detect_parts, embed, payload_of
from mystudio.provenance.watermark.detection import CELL, _Search, whiten
from mystudio.provenance.watermark.pattern import INNER, OUTER, cell_size, draw, waves
from mystudio.provenance.watermark.payload import CODED, MESSAGE, checksum, decode, encode
from selfscan.io import video


def landscape(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A made-up picture with plain parts, edges and texture [height, width, 3] uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    picture = np.stack([90 + 60 * y, 110 + 40 * x, 150 - 50 * y], -1)
    grain = cv2.GaussianBlur(random.normal(0, 60, (height, width)), (0, 0), 1.5)
    picture += (grain * np.clip(3 * (y - 0.4), 0, 1))[..., None]
    picture[(x - 0.5) ** 2 + (y - 0.35) ** 2 < 0.06] += 50
    return np.clip(picture, 0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """Eight frames 320 x 256 in which the picture moves."""
    wide = landscape(256, 360)
    return [np.ascontiguousarray(wide[:, 2 * t : 320 + 2 * t]) for t in range(8)]


@pytest.fixture(scope="module")
def marked(clip) -> list[np.ndarray]:
    return list(embed(np.stack(clip), PAYLOAD))


def test_check_sum_is_the_published_one():
    assert checksum(int.from_bytes(b"123456", "big")) == 0x2EF4  # CRC-16/CCITT-FALSE


def test_code_corrects_noise_and_refuses_what_it_cannot():
    random = np.random.default_rng(0)
    for payload in (0, (1 << 48) - 1, PAYLOAD):
        word = encode(payload)
        assert word.shape == (CODED,) and set(np.unique(word)) <= {-1, 1}
        assert decode(word) == payload
        broken = word.copy()
        broken[random.permutation(CODED)[:20]] *= -1
        assert decode(broken) == payload
    noise = [decode(random.normal(size=CODED)) for _ in range(30)]
    assert noise.count(None) >= 29  # one in 2^16 passes


def test_code_words_are_far_apart():
    random = np.random.default_rng(1)
    words = np.stack([encode(int(payload)) for payload in random.integers(0, 1 << 48, 200)])
    distances = (CODED - words @ words.T)[np.triu_indices(200, 1)] / 2
    assert distances.min() > 60
    neighbours = [np.sum(encode(PAYLOAD) != encode(PAYLOAD ^ 1 << bit)) for bit in range(48)]
    assert min(neighbours) >= 18  # the free distance


def test_tail_biting_has_no_weak_end():
    wrong = encode(PAYLOAD)
    for start in range(0, CODED, 16):
        erased = wrong.copy()
        erased[(start + np.arange(24)) % CODED] = 0
        assert decode(erased) == PAYLOAD
    assert MESSAGE == 64


def test_payload_of_a_digest():
    assert payload_of("5eedc0ded00d" + "f" * 52) == PAYLOAD
    for wrong in ("", "5eedc0", "x" * 64):
        with pytest.raises(StudioError, match="12 hex digits"):
            payload_of(wrong)
    with pytest.raises(StudioError, match="48 bits"):
        embed(landscape(64, 64), 1 << 48)


def test_waves_keep_to_their_band_and_differ_by_key():
    ours, theirs = waves("a"), waves("b")
    assert ours.radius.min() >= INNER and ours.radius.max() <= OUTER
    assert np.bincount(ours.bit[ours.bit >= 0], minlength=CODED).min() >= 2
    assert abs(np.exp(1j * (ours.phase - theirs.phase)).mean()) < 0.12


@pytest.mark.parametrize("size", [(128, 128), (256, 512), (512, 480), (720, 1280)])
def test_pattern_has_unit_strength_and_a_period_of_its_tile(size):
    pattern = draw("k", encode(1).astype(np.int8).tobytes(), *size)
    assert pattern.shape == size and np.sqrt(np.mean(pattern**2)) == pytest.approx(1, abs=1e-3)
    period = 128 * cell_size(*size)
    if period == round(period) and period < size[1]:
        np.testing.assert_allclose(pattern[:, round(period) :], pattern[:, : -round(period)], atol=2e-3)


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (512, 512), (256, 512), (360, 640)])
def test_round_trip_without_a_channel_has_no_wrong_payload_bit(size):
    clean = landscape(*size)
    image = embed(clean, PAYLOAD)
    assert psnr(image, clean) >= 41.8
    found = detect(image)
    assert found.payload == PAYLOAD and found.marked and found.false_positive < 1e-12
    assert bit_errors(found) < 0.1
    assert found.scale == pytest.approx(1, abs=0.01) and not found.mirrored


def test_embedding_is_deterministic_keeps_its_input_and_takes_any_leading_shape(clip):
    images = np.stack(clip[:4])
    before = images.copy()
    first = embed(images, PAYLOAD)
    np.testing.assert_array_equal(first, embed(images.reshape(2, 2, *images.shape[1:]), PAYLOAD).reshape(images.shape))
    np.testing.assert_array_equal(first[2], embed(np.asfortranarray(images[2]), PAYLOAD))
    np.testing.assert_array_equal(images, before)


def test_quality_is_bounded_in_the_busiest_picture():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    noise = cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert 41.5 <= psnr(embed(noise, PAYLOAD), noise) <= 46
    loud = WatermarkSettings(flat=8, psnr=40)
    assert psnr(embed(landscape(256, 256), PAYLOAD, loud), landscape(256, 256)) >= 39.8


def test_plain_surfaces_change_by_a_grey_level_or_two_and_beside_edges_too():
    picture = np.full((512, 512, 3), 200, np.uint8)
    picture[:, 256:] = 40
    change = embed(picture, PAYLOAD).astype(int) - picture
    assert np.abs(change).max() <= 2 and 0.4 < change.std() < 0.8


@pytest.mark.parametrize(
    "channel",
    [
        (compressed(23),), (compressed(28),), (cropped(0.1),), (scaled(0.5),), (scaled(0.5), scaled(2.0)),
        (toned(gamma=1.5),), (toned(gain=0.7, offset=20),), (marking.mirrored,),
        (cropped(0.1), toned(offset=15), compressed(23)), (compressed(23), compressed(28)),
    ],
)  # fmt: skip
def test_clip_keeps_its_mark(marked, channel):
    got = through(marked, channel)
    found = detect(got)
    assert found.payload == PAYLOAD and bit_errors(found) < 0.2
    assert found.mirrored == (channel == (marking.mirrored,))


def test_frames_add_up(marked):
    noise = np.random.default_rng(0)
    noisy = [np.clip(f + noise.normal(0, 12, f.shape), 0, 255).astype(np.uint8) for f in marked]
    assert detect(noisy).score > np.mean([detect(frame).score for frame in noisy[::3]]) + 1


def test_evidence_one_by_one_is_the_whole_clip(marked):
    evidence = Evidence()
    for frame in marked[:3]:
        evidence.add(frame)
    whole = detect(np.stack(marked[:3]))
    assert evidence.judge().score == whole.score and evidence.count == 3


def test_parts_of_a_clip_tell_their_avatars_apart(clip, marked):
    other = list(embed(np.stack(clip[:3]), 99))
    found = detect_parts(iter([*marked[:2], *clip[2:4], *other]), window=2)
    assert [(start, end, one.payload) for start, end, one in found] == [(0, 2, PAYLOAD), (4, 6, 99), (6, 7, 99)]
    with pytest.raises(StudioError, match="at least one frame"):
        detect_parts([])


def test_clean_clip_and_wrong_key_give_nothing(clip, marked):
    assert not detect(clip).marked
    for one in (detect(clip), detect(marked, WatermarkSettings(key="another"))):
        assert one.payload is None and one.soft is None and one.false_positive > 1e-3


def test_chance_is_what_the_bound_says_for_structured_pictures_too():
    """Over many keys the score in an unmarked image is at most standard normal, and P(E >= t) <= exp(-t)."""
    stripes = np.repeat((np.sin(np.arange(192) / 1.9)[:, None, None] > 0) * np.uint8([200, 180, 90]), 192, 1)
    for picture in (landscape(192, 192), stripes.astype(np.uint8)):
        residual = whiten(picture)
        scores = []
        for key in range(150):
            search = _Search(residual, f"{key}")
            scores.append(search.around(CELL, np.zeros(2), 1.0)[4].z)
        assert abs(np.mean(scores)) < 0.35 and np.std(scores) < 1.25
        for exponent in (1.0, 2.0, 4.0):
            assert np.mean(np.maximum(scores, 0) ** 2 / 2 >= exponent) <= np.exp(-exponent)


def test_overwritten_mark_is_never_a_third_payload(clip):
    twice = embed(embed(clip[0], PAYLOAD), 1234567)
    assert detect(twice).payload in (None, PAYLOAD, 1234567)
    mixed = np.concatenate([embed(clip[0], PAYLOAD)[:, :160], embed(clip[0], 1234567)[:, 160:]], 1)
    assert detect(mixed).payload in (None, PAYLOAD, 1234567)


def test_damaged_bits_are_marked_but_not_read_unless_expected(clip, monkeypatch):
    """With a third of the bits inverted, the mark is detected and the payload rejected."""
    word = encode(PAYLOAD).copy()
    word[np.random.default_rng(3).permutation(CODED)[:64]] *= -1
    monkeypatch.setattr("mystudio.provenance.watermark.embedding.encode", lambda payload: word)
    image = embed(landscape(512, 512), PAYLOAD)
    monkeypatch.undo()
    found = detect(image)
    assert found.marked and found.payload is None and found.soft is not None
    assert detect(image, known=[1, PAYLOAD, 2]).payload == PAYLOAD
    assert detect(image, known=[1, 2]).payload is None


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (48, 48), (256, 256)])
def test_flat_and_tiny_pictures_neither_crash_nor_lie(value, size):
    flat = np.full((*size, 3), value, np.uint8)
    found = detect(flat)
    assert not found.marked and found.payload is None and found.false_positive == 1
    image = embed(flat, PAYLOAD)
    assert image.shape == flat.shape and np.abs(image.astype(int) - flat).max() <= 2
    assert detect(image).payload in (None, PAYLOAD)


def test_wrong_inputs_are_refused():
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(StudioError, match="uint8 RGB"):
            embed(wrong, PAYLOAD)
        with pytest.raises(StudioError, match="uint8 RGB"):
            detect([wrong])
    with pytest.raises(StudioError, match="at least one frame"):
        detect([])
    with pytest.raises(StudioError, match="one size"):
        detect([landscape(64, 64), landscape(64, 80)])


def test_real_faces_keep_their_mark_at_crf_28(shared):
    frames = marking.first_frames(shared / "clips" / "scan-glasses.mp4", 6)
    images = embed(np.stack(frames), PAYLOAD)
    assert psnr(images, np.stack(frames)) >= 41.8
    found = detect(through(list(images), (cropped(0.1), compressed(28))))
    assert found.payload == PAYLOAD
    assert not detect(frames).marked


def test_mark_stands_still(clip, marked):
    """The mark is constant in still parts of a clip, and changes less than the picture in moving parts."""
    still = embed(np.stack([clip[0], clip[0]]), PAYLOAD)
    np.testing.assert_array_equal(still[0], still[1])
    change = [b.astype(int) - a for a, b in zip(clip, marked)]
    flicker = np.sqrt(np.mean([np.mean((b - a) ** 2) for a, b in itertools.pairwise(change)]))
    assert flicker < 1.0


def test_table_and_quality_of_a_small_clip(tmp_path, clip):
    path = tmp_path / "clip.mp4"
    video.write(path, clip, np.arange(len(clip)) / 25, crf=10)
    costs = marking.quality(path, 4)
    assert costs["lowest"] >= 41.8 and costs["flicker"] < costs["motion"]
    case = marking.MarkingCase((path,), frames=2, looked_at=1)
    rows = marking.robustness(case, {"nothing": (), "CRF 51": (compressed(51),)})
    assert [row["whole"]["read"] for row in rows] == [1, 0] and rows[1]["whole"]["errors"] == 0.5
    assert rows[1]["frame"]["wrong"] == 0
    assert "| CRF 51 | 50.0 | 0 | 50.0 | 0 of 1 | 0 of 1 |" in marking.markdown(rows)
    assert marking.false_positives(clip[:2])["found"] == 0
