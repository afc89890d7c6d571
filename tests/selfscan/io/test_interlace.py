"""Deinterlacing: clips are woven here from fields of a known scene."""

import av
import cv2
import numpy as np
import pytest

from selfscan.io import video

HEIGHT, WIDTH = 240, 320


def scene(field):
    """A textured picture that moves by 2 px a field to the side, and by half a px down."""
    texture = np.random.default_rng(0).integers(0, 255, (24, 40), np.uint8)
    texture = cv2.resize(texture, (800, 480), interpolation=cv2.INTER_CUBIC)
    x, y = 20 + 2 * field, 10 + field // 2
    return np.ascontiguousarray(texture[y : y + HEIGHT, x : x + WIDTH])


def fields_of(frame, still=0):
    first = 2 * max(0, frame - still)
    return first, first + (frame >= still)


def clip(path, frames=24, woven=True, flagged=True, bottom_first=False, still=0):
    options = {"crf": "6", "preset": "ultrafast"}
    if flagged:
        options |= {"flags": "+ilme+ildct", "x264-params": "bff=1" if bottom_first else "tff=1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for k in range(frames):
            first, second = fields_of(k, still)
            image = scene(first).copy()
            if woven:
                later = slice(0, None, 2) if bottom_first else slice(1, None, 2)
                image[later] = scene(second)[later]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def errors(path, still=0):
    said, found = [], []
    for k, (time, frame) in enumerate(video.read(path, warn=said.append)):
        assert time == pytest.approx(k / 25, abs=1e-3)
        found.append(np.abs(frame[..., 1].astype(int) - scene(fields_of(k, still)[0])).mean())
    return np.array(found), said


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("bottom_first", [True, False])
def test_interlaced_frames_become_their_first_field(tmp_path, flagged, bottom_first):
    path = clip(tmp_path / "i.mp4", flagged=flagged, bottom_first=bottom_first)
    with av.open(str(path)) as container:
        combed = [np.abs(f.to_ndarray(format="gray")[1::2].astype(int) - scene(2 * k)[1::2]).mean()
                  for k, f in enumerate(container.decode(video=0))]  # fmt: skip
    found, said = errors(path)
    assert len(found) == 24 and found.max() < 2
    assert bottom_first or np.mean(combed) > 3, "the stored frames were meant to be combed"
    assert len(said) == 1 and "deinterlaced" in said[0]


def test_progressive_frames_with_a_wrong_flag_stay_exactly_as_they_are(tmp_path):
    path = clip(tmp_path / "p.mp4", woven=False)
    with av.open(str(path)) as container:
        flags = [frame.interlaced_frame for frame in container.decode(video=0)]
    plain = clip(tmp_path / "q.mp4", woven=False, flagged=False)
    assert all(flags)
    found, said = errors(path)
    assert not said and found.max() < errors(plain)[0].max() + 0.3
    with av.open(str(path)) as container:
        stored = [frame.to_rgb().to_ndarray() for frame in container.decode(video=0)]
    for (_, got), want in zip(video.read(path), stored, strict=True):
        assert np.array_equal(got, want)


def test_progressive_clips_are_never_deinterlaced(tmp_path):
    found, said = errors(clip(tmp_path / "p.mp4", frames=60, woven=False, flagged=False))
    assert len(found) == 60 and not said


def test_motion_that_begins_late_is_found(tmp_path):
    found, said = errors(clip(tmp_path / "l.mp4", frames=60, still=30), still=30)
    assert len(found) == 60 and found.max() < 2 and len(said) == 1


@pytest.mark.parametrize("frames", [1, 2, 3, 11])
def test_short_clips_keep_all_frames(tmp_path, frames):
    assert len(errors(clip(tmp_path / "s.mp4", frames=frames))[0]) == frames


def test_one_odd_frame_in_a_still_progressive_clip_is_no_sign_of_fields(tmp_path):
    path, said = tmp_path / "o.mp4", []
    odd = scene(0).copy()
    odd[1::2] = scene(1)[1::2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "6"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for k in range(60):
            image = scene(0) if k < 5 else odd if k == 5 else scene(2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    frames = [frame for _, frame in video.read(path, warn=said.append)]
    assert len(frames) == 60 and not said
    assert np.abs(frames[30][..., 1].astype(int) - scene(2)).mean() < 1
