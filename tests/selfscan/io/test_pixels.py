import numpy as np
import torch

from selfscan.io.pixels import dequantize, quantize, to_tensor, to_uint8


def test_every_level_comes_back():
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], levels // 2], 1)[None, None]  # [1, 1, 256, 3]
    values = to_tensor(image)
    assert values.shape == (1, 3, 1, 256) and values.dtype == torch.float32
    assert values.min() == -1 and values.max() == 1 and torch.equal(values[0, 1], values[0, 0].flip(-1))
    np.testing.assert_array_equal(to_uint8(values), image)


def test_values_become_the_nearest_level_within_the_range():
    step = 2 / 255
    values = torch.tensor([-1.5, -1 + 0.6 * step, -1 + 1.4 * step, 1 - 0.4 * step, 1.5])
    assert quantize(values).tolist() == [0, 1, 1, 255, 255]


def test_any_number_of_leading_axes_and_views_are_taken():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), np.uint8)
    assert to_tensor(images).shape == (2, 3, 3, 4, 5) and to_uint8(to_tensor(images[0, 0])).shape == (4, 5, 3)
    flipped = images[:, :, :, ::-1]
    np.testing.assert_array_equal(to_uint8(to_tensor(flipped)), flipped)
    assert torch.equal(dequantize(torch.from_numpy(images)).movedim(-1, -3), to_tensor(images))
