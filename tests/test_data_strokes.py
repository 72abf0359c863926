"""The drawn digits: deterministic, like MNIST in the large, true to their factors, and legible."""

from __future__ import annotations

import numpy as np
import pytest

from tinygan.data import Dataset, load_dataset, strokes
from tinygan.data.strokes import STYLES
from tinygan.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return strokes(5000)


def factor(data: Dataset, name: str) -> np.ndarray:
    assert data.factors is not None
    return np.asarray(data.factors[name], float)


def test_shapes_and_types(digits: Dataset) -> None:
    assert digits.name == "strokes"
    assert len(digits) == 5000
    assert digits.images.shape == (5000, 28, 28, 1)
    assert digits.images.dtype == np.uint8
    assert digits.images.min() == 0
    assert digits.images.max() == 255
    assert not digits.images.flags.writeable, "callers share the images"
    assert strokes(1).images.shape == (1, 28, 28, 1)


def test_the_same_images_in_a_longer_set(digits: Dataset) -> None:
    for n in (100, 251):
        few = strokes(n)
        np.testing.assert_array_equal(few.images, digits.images[:n])
        np.testing.assert_array_equal(few.labels, digits.labels[:n])
        np.testing.assert_array_equal(factor(few, "slant"), factor(digits, "slant")[:n])


def test_seeds_and_splits_differ(digits: Dataset) -> None:
    for other in (strokes(250, seed=1), strokes(250, split="test"), strokes(250, seed=2**64 - 1)):
        assert (other.images != digits.images[:250]).any(axis=(1, 2, 3)).all()
    test = load_dataset("strokes", "test")
    assert len(test) == 10_000
    assert test is load_dataset("strokes", "test")
    np.testing.assert_array_equal(test.images[:250], strokes(250, split="test").images)


def test_the_drawing_has_not_changed() -> None:
    # exact for the draws; grey levels may differ by one where a processor rounds otherwise
    data = strokes(16)
    assert data.labels.tolist() == [0, 6, 4, 0, 7, 7, 9, 4, 1, 9, 7, 0, 3, 4, 0, 0]
    quarters = data.images[0, :, :, 0].reshape(4, 7, 4, 7).sum(axis=(1, 3), dtype=int)
    expected = [0, 104, 3036, 966, 36, 4780, 975, 4244, 2210, 1496, 2824, 745, 1377, 3479, 902, 0]
    np.testing.assert_allclose(quarters.ravel(), expected, atol=5)


def test_looks_like_mnist_in_the_large(digits: Dataset) -> None:
    # MNIST: mean 0.131, standard deviation 0.308, a share of ink of 0.191, of dark ink 0.132
    pixels = digits.images / 255
    assert abs(pixels.mean() - 0.131) < 0.01
    assert abs(pixels.std() - 0.308) < 0.01
    assert abs((pixels > 0).mean() - 0.191) < 0.015
    assert abs((pixels > 0.5).mean() - 0.132) < 0.01
    ink = pixels[..., 0] > 0.5
    rows, columns = ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1)
    assert abs(np.maximum(rows, columns).mean() - 20) < 0.5, "the longer side fills 20 pixels"
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    assert ink[:, edge].any(axis=1).mean() < 0.02, "MNIST: 0.015 touch the frame"


def test_every_digit_in_every_style(digits: Dataset) -> None:
    counts = np.bincount(digits.labels, minlength=10)
    assert len(STYLES) == len(counts) == 10
    assert (abs(counts - 500) < 100).all()
    for label, styles in enumerate(STYLES):
        drawn = factor(digits, "style")[digits.labels == label]
        assert set(drawn) == set(range(len(styles)))


def test_factors_are_what_was_drawn(digits: Dataset) -> None:
    ink = digits.images[..., 0] / 255
    mass = ink.sum(axis=(1, 2))
    place = np.arange(28) - 13.5
    x = (ink.sum(axis=1) @ place) / mass
    y = (ink.sum(axis=2) @ place) / mass
    assert np.abs(x - factor(digits, "dx")).mean() < 0.25
    assert np.abs(y - factor(digits, "dy")).mean() < 0.4

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    ones = (digits.labels == 1) & (factor(digits, "style") == 0)  # a plain bar
    assert correlation(mass[ones], factor(digits, "thickness")[ones]) > 0.9
    lean = np.einsum("nyx,y,x->n", ink, -place, place) / np.einsum("nyx,y->n", ink, place**2)
    assert correlation(lean[ones], factor(digits, "slant")[ones]) > 0.8
    zeros = (digits.labels == 0) & (abs(factor(digits, "slant")) < 0.15)
    wide = np.einsum("nyx,x->n", ink, place**2) / np.einsum("nyx,y->n", ink, place**2)
    assert correlation(wide[zeros], factor(digits, "width")[zeros]) > 0.7


def test_a_nearest_neighbour_reads_them(digits: Dataset) -> None:
    unread = strokes(500, split="test")
    known, asked = (d.images.reshape(len(d), -1) / np.float32(255) for d in (digits, unread))
    distance = (known**2).sum(axis=1) - 2 * asked @ known.T
    assert (digits.labels[distance.argmin(axis=1)] == unread.labels).mean() > 0.93


def test_refuses_nonsense() -> None:
    for n in (0, -5):
        with pytest.raises(DataError, match=f"n >= 1 images, got {n}"):
            strokes(n)
    for seed in (-1, 2**64):
        with pytest.raises(DataError, match=f"seed < 2\\*\\*64, got {seed}"):
            strokes(1, seed)
    for split in ("", "validation"):
        with pytest.raises(
            DataError, match=f"unknown split '{split}': expected one of train, test"
        ):
            load_dataset("strokes", split)
