"""Rendering: all frames, unchanged pixels outside the face, constant memory, and recovery from faults."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio.errors import OutputFailed, StudioError
from mystudio.rendering import render as module
from mystudio.rendering.blend import Blend
from mystudio.rendering.cover import Cover
from mystudio.rendering.render import RenderSettings, driver_frames, enlarge, frames, render, synthesize
from mystudio.stylegan2.generator import Generator
from mystudio.types import Outcome
from selfscan.face.align import apply, crop, invert, rescale
from selfscan.io import video
from selfscan.io.pixels import to_uint8


def settings(**keys) -> RenderSettings:
    return RenderSettings(**keys)


def test_aligned_frames_are_the_generators_pictures_enlarged(tiny_avatar, take, performance):
    got = list(frames(tiny_avatar, take, performance, settings(batch=5)))
    whole = to_uint8(torch.cat(list(synthesize(tiny_avatar, take, 100))))
    assert len(got) == len(take) and got[0].shape == (256, 256, 3) and got[0].dtype == np.uint8
    expected = np.stack([enlarge(image, 256) for image in whole])
    assert np.abs(np.stack(got).astype(int) - expected).max() <= 1


def test_side_by_side_is_the_drivers_crop_and_the_avatar(tiny_avatar, take, performance):
    got = np.stack(list(frames(tiny_avatar, take, performance, settings(view="side-by-side", size=64))))
    assert got.shape == (len(take), 64, 128, 3)
    aligned = np.stack(list(frames(tiny_avatar, take, performance, settings(size=64))))
    np.testing.assert_array_equal(got[:, :, 64:], aligned)
    transform = rescale(performance.observation.alignment.crop_from_frame[3], 64 / 256)
    frame = list(video.read(performance.observation.video))[3][1]
    np.testing.assert_array_equal(got[3, :, :64], crop(frame, transform, 64))


def test_paste_keeps_frames_without_a_face_and_everything_outside_the_face(tiny_avatar, take, performance):
    got = list(frames(tiny_avatar, take, performance, settings(view="paste", size=128, unpasted="driver")))
    source = [frame for _, frame in video.read(performance.observation.video)]
    assert len(got) == len(source)
    for index in (4, 5):
        np.testing.assert_array_equal(got[index], source[index])
    seen = performance.observation
    low, high = np.floor(seen.track.landmarks[0, :, :2].min(0)) - 4, np.ceil(seen.track.landmarks[0, :, :2].max(0)) + 4
    outside = np.ones(source[0].shape[:2], bool)
    outside[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])] = False
    np.testing.assert_array_equal(got[0][outside], source[0][outside])
    assert np.abs(got[0].astype(int) - source[0])[~outside].max() > 20


def test_frames_without_a_face_do_not_show_the_drivers_face(tiny_avatar, take, performance):
    """Where no face was found, the place of the face has nothing of the driver's picture; the rest is unchanged."""
    got = list(frames(tiny_avatar, take, performance, settings(view="paste", size=128)))
    source = [frame for _, frame in video.read(performance.observation.video)]
    seen = performance.observation
    for index in (4, 5):
        low, high = (f(seen.track.landmarks[index, :, :2], axis=0).round().astype(int) for f in (np.min, np.max))
        inside = (slice(low[1], high[1]), slice(low[0], high[0]))
        theirs, ours = (picture[inside].astype(float) for picture in (source[index], got[index]))
        assert np.abs(ours - theirs).mean() > 15
        np.testing.assert_array_equal(got[index][:, :8], source[index][:, :8])
    alone = Cover(seen, seen.track.valid)
    noise = np.random.default_rng(0).integers(0, 256, source[4].shape).astype(np.uint8)
    blurred = alone(noise, 4)
    alone.close()
    middle = apply(invert(seen.alignment.crop_from_frame[4]), np.array([[128.0, 128.0]]))[0].astype(int)
    around = (slice(middle[1] - 12, middle[1] + 12), slice(middle[0] - 12, middle[0] + 12))
    assert blurred[around].std((0, 1)).max() < 0.1 * noise[around].std((0, 1)).min()


def test_cover_holds_the_avatar_only_near_a_face_of_the_same_shot(performance):
    seen = performance.observation
    cover = Cover(seen, seen.track.valid)
    assert cover.holds(4) and cover.holds(0)
    track = dataclasses.replace(seen.track, cuts=np.array([[4, 4], [6, 6]]))  # frames 4 and 5 are a shot of their own
    cut = Cover(dataclasses.replace(seen, track=track), seen.track.valid)
    assert not cut.holds(4) and cut.holds(3)


def test_pasting_the_drivers_own_crop_changes_nothing_and_wrong_light_is_corrected(performance):
    seen, size = performance.observation, 256
    frame = next(driver_frames(performance))
    transform = seen.alignment.crop_from_frame[0]
    own = crop(frame, transform, size)
    inside = _interior(seen, frame.shape)

    def gap(image, colour):
        blend = Blend(seen.landmarks, seen.track.valid, size, 0.1, colour)
        pasted = blend(frame, image, seen.landmarks[0], transform, 0)
        return np.abs(pasted.astype(float) - frame)[inside].mean()

    assert gap(own, 1.0) < 1.5
    darker = (own.astype(float) * 0.8).astype(np.uint8)
    assert gap(darker, 0.0) > 10
    assert gap(darker, 1.0) < 0.35 * gap(darker, 0.0)


def _interior(seen, shape):
    import cv2

    hull = cv2.convexHull(np.rint(seen.track.landmarks[0, :, :2]).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(shape[:2], np.uint8), hull, 1) > 0


def test_the_mask_rises_from_zero_at_the_oval_to_one_inside(performance):
    seen = performance.observation
    blend = Blend(seen.landmarks, seen.track.valid, 256, 0.1, 0)
    oval = blend._ovals[0]
    mask = blend._soft(oval)
    centre, rim = (oval.mean(0) * 256).astype(int), (oval * 256).astype(int)
    assert mask[centre[1], centre[0]] == 1
    assert mask[rim[:, 1], rim[:, 0]].max() < 0.1
    assert 0 <= mask.min() and np.abs(np.diff(mask, axis=1)).max() < 0.15  # no visible edge


@pytest.mark.parametrize("view", ["aligned", "side-by-side", "paste"])
def test_the_clip_has_the_drivers_times_and_every_frame(tiny_avatar, take, performance, tmp_path, view):
    done = []
    out = render(tiny_avatar, take, performance, tmp_path / "out clip.mp4", settings(view=view, size=64),
                 progress=lambda stage, k, n: done.append((k, n)))  # fmt: skip
    times = [time for time, _ in video.read(out)]
    np.testing.assert_allclose(times, performance.observation.track.times, atol=1e-4)
    assert done[0] == (0, 12) and done[-1] == (12, 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out clip.mp4"]


class Hungry(torch.nn.Module):
    """A generator that raises out of memory for batches of ``limit`` and more."""

    def __init__(self, generator, limit, error):
        super().__init__()
        self.generator, self.limit, self.error = generator, limit, error
        self.resolution, self.num_ws, self.batches = generator.resolution, generator.num_ws, []

    def styles(self, ws):
        return self.generator.styles(ws)

    def synthesize(self, styles, *how):
        self.batches.append(len(styles.vectors[0]))
        if self.batches[-1] >= self.limit:
            raise self.error
        return self.generator.synthesize(styles, *how)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_says_so(tiny_avatar, take, caplog, error):
    hungry = Hungry(tiny_avatar.generator, 4, error)
    avatar = dataclasses.replace(tiny_avatar, generator=hungry)
    with caplog.at_level(logging.WARNING):
        got = torch.cat(list(synthesize(avatar, take, 8, precision="float32")))
    assert hungry.batches == [8, 4] + [2] * 6
    assert "out of memory" in caplog.text
    whole = torch.cat(list(synthesize(tiny_avatar, take, 12, precision="float32")))
    torch.testing.assert_close(got, whole, atol=1e-4, rtol=0)


def test_other_faults_and_hopeless_memory_are_raised(tiny_avatar, take):
    broken = dataclasses.replace(tiny_avatar, generator=Hungry(tiny_avatar.generator, 1, RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        list(synthesize(broken, take, 8))
    full = dataclasses.replace(tiny_avatar, generator=Hungry(tiny_avatar.generator, 1, MemoryError()))
    with pytest.raises(MemoryError):
        list(synthesize(full, take, 8))


def test_frames_stream_batch_by_batch(tiny_avatar, take, performance):
    watched = Hungry(tiny_avatar.generator, 1000, None)
    stream = frames(dataclasses.replace(tiny_avatar, generator=watched), take, performance, settings(batch=3))
    next(stream)
    assert watched.batches == [3]


def test_a_take_of_another_clip_is_refused(tiny_avatar, take, performance):
    short = dataclasses.replace(
        take, codes={"axes": take.codes["axes"][:5]}, outcome=take.outcome[:5], times=take.times[:5]
    )
    with pytest.raises(StudioError, match="5 and 12 frames"):
        frames(tiny_avatar, short, performance)
    with pytest.raises(StudioError, match="aligned, side-by-side or paste"):
        frames(tiny_avatar, take, performance, settings(view="mirror"))


def test_a_driving_clip_that_lost_its_end_is_reported(performance, tmp_path):
    times, images = zip(*video.read(performance.observation.video))
    video.write(tmp_path / "cut.mp4", images[:7], times[:7])
    seen = dataclasses.replace(performance.observation, video=str(tmp_path / "cut.mp4"))
    with pytest.raises(StudioError, match="expected 12 frames.*got 7"):
        list(driver_frames(dataclasses.replace(performance, observation=seen)))


def test_a_result_that_cannot_be_written_leaves_the_old_one(tiny_avatar, take, performance, tmp_path):
    with pytest.raises(OutputFailed):
        render(tiny_avatar, take, performance, tmp_path / "missing" / "out.mp4")
    broken = dataclasses.replace(tiny_avatar, generator=Hungry(tiny_avatar.generator, 3, RuntimeError("boom")))
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="boom"):
        render(broken, take, performance, target, settings(batch=3))
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_landmarks_of_the_crop_fit_the_alignment(performance):
    """The synthetic clip is consistent: its crop landmarks are the transformed frame landmarks."""
    seen = performance.observation
    moved = apply(seen.alignment.crop_from_frame, seen.track.landmarks[..., :2]) / seen.alignment.size
    np.testing.assert_allclose(moved, seen.landmarks[..., :2], atol=1e-4)
    assert Outcome.NO_FACE == 2


@pytest.mark.slow
@pytest.mark.parametrize("view", ["aligned", "paste"])
def test_memory_does_not_grow_with_the_clip(tiny_avatar, take, performance, tmp_path, view):
    """Five times the frames need the same peak memory, plus the landmarks; the first clip warms up the allocator."""
    import resource

    def peak(repeats):
        clip, acted = _longer(performance, take, repeats, tmp_path)
        count = sum(1 for _ in frames(tiny_avatar, acted, clip, settings(view=view)))
        assert count == repeats * len(take)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

    short = peak(12)
    assert peak(60) - short < 60


def _longer(performance, take, repeats, folder):
    import itertools

    seen = performance.observation
    images = [frame for _, frame in video.read(seen.video)]
    path = folder / f"{repeats}.mp4"
    times = np.arange(repeats * len(images)) / 25
    video.write(path, itertools.chain.from_iterable(itertools.repeat(images, repeats)), times)
    per_frame = {
        f.name: np.concatenate([getattr(seen.track, f.name)] * repeats)
        for f in dataclasses.fields(seen.track)
        if f.name not in ("frame_size", "times")
    }
    track = dataclasses.replace(seen.track, times=times, **per_frame)
    transforms = np.concatenate([seen.alignment.crop_from_frame] * repeats)
    seen = dataclasses.replace(
        seen, track=track, alignment=dataclasses.replace(seen.alignment, crop_from_frame=transforms),
        landmarks=np.concatenate([seen.landmarks] * repeats), presence=np.concatenate([seen.presence] * repeats),
        video=str(path),
    )  # fmt: skip
    acted = dataclasses.replace(
        take,
        codes={"axes": take.codes["axes"].repeat(repeats, 1, 1)},
        outcome=np.tile(take.outcome, repeats),
        times=times,
        losses={},
    )
    return dataclasses.replace(performance, observation=seen), acted


def pictures(path):
    return [(time, image.tobytes()) for time, image in video.read(path)]


@pytest.mark.parametrize("view", ["aligned", "side-by-side", "paste"])
@pytest.mark.parametrize("most", [1, 2])
def test_a_render_goes_on_after_its_last_segment_and_ends_in_the_same_clip(
    tiny_avatar, take, performance, tmp_path, view, most
):
    asked = settings(view=view, size=64, batch=2, keep_seconds=0.16)
    whole = render(tiny_avatar, take, performance, tmp_path / "whole.mp4", asked)
    keep, drawn = MemoryCheckpoints(), []
    keep.most = most
    with pytest.raises(KeyboardInterrupt):
        render(tiny_avatar, take, performance, tmp_path / "out.mp4", asked, checkpoints=keep)
    assert sorted(keep) == ["segment0000000", "segment0000004"][:most]
    keep.most = MemoryCheckpoints.most
    out = render(
        tiny_avatar,
        take,
        performance,
        tmp_path / "out.mp4",
        asked,
        checkpoints=keep,
        progress=lambda stage, done, total: drawn.append(done),
    )
    assert drawn == list(range(4 * most, len(take) + 1))
    assert pictures(out) == pictures(whole) and out.read_bytes() == whole.read_bytes()
    keep.pop("segment0000004")  # damaged: later segments are drawn again too
    drawn.clear()
    assert pictures(
        render(
            tiny_avatar,
            take,
            performance,
            out,
            asked,
            checkpoints=keep,
            progress=lambda stage, done, total: drawn.append(done),
        )
    ) == pictures(whole)
    assert drawn[0] == 4


def test_segments_are_whole_batches_of_about_the_wanted_length():
    lengths = [
        module.segment_length(settings(batch=batch, keep_seconds=seconds), rate)
        for batch, seconds, rate in ((8, 2, 30), (8, 2, 25), (8, 0.01, 25), (100, 2, 25), (1, 2, 29.97))
    ]
    assert lengths == [64, 48, 8, 100, 60]
    with pytest.raises(ValueError, match="keep_seconds above 0"):
        settings(keep_seconds=0.0)


def test_pictures_at_a_lower_precision_are_the_same_pictures(tiny_avatar, take):
    exact, coarse = (torch.cat(list(synthesize(tiny_avatar, take, 12, 0, how))) for how in ("float32", "bfloat16"))
    assert 0 < (exact - coarse).square().mean() < 2**2 * 1e-4  # 40 dB of pictures in [-1, 1]


@pytest.mark.slow
def test_compiled_pictures_are_the_same_pictures(tiny_avatar, take):
    """The generator has two blocks, which hold every kind of layer: the compiler takes seconds for each block."""
    torch.manual_seed(0)
    small = Generator(8, z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=16).eval()
    avatar = dataclasses.replace(tiny_avatar, generator=small.requires_grad_(False))
    few = dataclasses.replace(take, codes={"axes": take.codes["axes"][:, : small.num_ws]})
    exact, compiled = (torch.cat(list(synthesize(avatar, few, 12, 0, "float32", how))) for how in ("no", "graphs"))
    assert exact.shape == (12, 3, 8, 8)
    torch.testing.assert_close(compiled, exact, atol=1e-4, rtol=0)
