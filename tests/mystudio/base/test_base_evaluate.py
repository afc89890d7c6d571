"""Evaluation of a base: metrics against closed forms, and the whole evaluation of a tiny base."""

import cv2
import numpy as np
import pytest
import torch

from mystudio.base.data import Mixture
from mystudio.base.evaluate import controllability, evaluate_base, nearest, summary, training_images, write
from mystudio.base.features import FeatureSpace, frechet, load_features, precision_recall
from mystudio.base.sheets import fixed_latents, pictures, sheet_of_base, tile
from mystudio.base.sources import ImageFolder, open_source
from mystudio.bases import find_base
from mystudio.stylegan2.checkpoint import load_generator
from mystudio.stylegan2.generator import Generator
from selfscan.io.pixels import to_tensor

CPU = torch.device("cpu")


def _with_moments(count, mean, covariance, rng):
    """Samples whose mean and covariance are exact."""
    x = rng.normal(size=(count, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(np.asarray(covariance)).T + mean


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    a = _with_moments(500, [0, 0, 0], np.diag([1.0, 4.0, 9.0]), rng)
    b = _with_moments(400, [3, 0, 4], np.diag([4.0, 4.0, 1.0]), rng)
    # commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2
    assert frechet(a, b) == pytest.approx(25 + 1 + 0 + 4, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(30, rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    flat = np.concatenate([a, np.zeros((500, 2))], 1)  # covariances without full rank
    assert frechet(flat, flat + 1) == pytest.approx(5, abs=1e-6)


def test_precision_and_recall_of_known_sets():
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 100
    assert precision_recall(near, near) == (1.0, 1.0)
    assert precision_recall(near, far) == (0.0, 0.0)
    both = np.concatenate([near, far])
    precision, recall = precision_recall(both, near)  # the samples cover half of the real images
    assert precision == 1.0 and recall == 0.5
    precision, recall = precision_recall(near, both)
    assert precision == 0.5 and recall == 1.0


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(18):
        small = rng.integers(0, 256, (4, 4, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{k}.png"), cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC))
    return Mixture([ImageFolder(tmp_path, 32)])


def test_training_images_are_all_or_different_ones(photos):
    assert len(training_images(photos, 100)) == 18
    some = training_images(photos, 10)
    assert len({image.tobytes() for image in some}) == 10


def test_a_copy_is_its_own_nearest_image(photos):
    real = training_images(photos, 18)
    noisy = (real[5:8].astype(int) + np.random.default_rng(0).integers(-3, 4, real[5:8].shape)).clip(0, 255)
    index, distance = nearest(noisy.astype(np.uint8), real, CPU)
    assert index.tolist() == [5, 6, 7] and distance.max() < 0.1


def test_a_tiny_base_from_end_to_end(photos, tmp_path):
    torch.manual_seed(0)
    g = Generator(32, 8, 8, 2, 128, 8).eval()
    colours = FeatureSpace("mean colour [3]", lambda x: x.mean((2, 3)))
    result = evaluate_base(g, photos, 24, 18, device=CPU, space=colours)
    f = result.figures
    assert f["samples"] == 24 and f["training_images"] == 18 and f["faces_found"] < 0.5  # noise shows no face
    assert f["feature_space"] == "mean colour [3]" and f["frechet"] > 0 and 0 <= f["precision"] <= 1
    assert result.nearest.shape == (64, 16 * 32, 3)
    again = evaluate_base(g, photos, 24, 18, device=CPU, space=colours)
    assert again.figures == f
    write(result, tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out" / "nearest.png")).shape == (64, 512, 3)
    assert "mean colour" in summary(result)


def test_the_feature_space_is_named_and_sees_differences(photos):
    space = load_features(CPU)
    x = to_tensor(training_images(photos, 18))
    features = space.embed(torch.nn.functional.interpolate(x, (64, 64)))
    assert features.shape == (18, int(space.name.split("[")[1].rstrip("]"))) and features.std(0).max() > 0


def test_sheets_lay_images_side_by_side():
    a, b = np.full((3, 8, 8, 3), 10, np.uint8), np.full((2, 8, 8, 3), 200, np.uint8)
    sheet = tile([a, b])
    assert sheet.shape == (16, 24, 3) and (sheet[:8] == 10).all() and (sheet[8:, :16] == 200).all()
    assert (sheet[8:, 16:] == 255).all()
    torch.manual_seed(0)
    g = Generator(16, 8, 8, 2, 64, 8)
    whole = sheet_of_base(g)
    assert whole.shape == (7 * 16, 8 * 16, 3)
    assert np.array_equal(whole, sheet_of_base(g)) and not np.array_equal(whole, sheet_of_base(g, seed=1))
    assert np.ptp(sheet_of_base(g, truncation=0.0)[32:48].reshape(16, 8, 16, 3), axis=1).max() == 0  # the mean face


def test_a_base_obeys_codes_that_its_own_pictures_have_and_not_strangers(tmp_path):
    base = load_generator(find_base("people128").path)
    z = fixed_latents(48, base.z_dim, seed=3)
    z[:, -1] = z[:, -1].abs()
    images = np.concatenate([pictures(base, base.mapping(part)) for part in z.split(16)])
    for name, codes in (("own", z), ("strangers", z.roll(1, 0))):
        np.savez(tmp_path / f"{name}.npz", images=images, codes=codes.numpy())
    found = {
        name: controllability(base, Mixture([open_source(tmp_path / f"{name}.npz", 128)]), count=96)
        for name in ("own", "strangers")
    }
    for measure, row in found["own"].items():
        assert row["slope"] == pytest.approx(1, abs=0.02) and row["correlation"] > 0.99, measure
    assert np.mean([abs(row["correlation"]) for row in found["strangers"].values()]) < 0.3
