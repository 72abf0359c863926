"""Minibatches, of images and of points: what they refuse, and where they begin."""

from __future__ import annotations

import numpy as np
import pytest

from tinygan.backend import get_backend
from tinygan.data import Minibatches, PointBatches, PointSet
from tinygan.errors import DataError
from tinygan.noise import Noise

IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)


@pytest.mark.parametrize("value_range", [(1.0, -1.0), (0.0, 0.0), (0.0, float("nan"))])
def test_an_empty_range_is_refused(value_range: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="cannot be scaled"):
        Minibatches(IMAGES, 2, Noise(0, get_backend("numpy")), value_range)


@pytest.mark.parametrize("replacement", [False, True])
def test_before_the_first_step_there_is_a_batch_already(replacement: bool) -> None:
    noise = Noise(0, get_backend("numpy"))
    sample = Minibatches(IMAGES, 4, noise, (0.0, 255.0), replacement=replacement)
    assert sample().shape == (4, 1, 1, 1)


# ---- points --------------------------------------------------------------------------------------

POINTS = np.arange(20, dtype=np.float32).reshape(10, 2)


def test_points_come_like_images_do(backend) -> None:
    noise = Noise(0, backend)
    images = Minibatches(IMAGES, 3, noise, (0.0, 255.0), k=2)
    points = PointBatches(POINTS, 3, noise, k=2)
    for noise.step, noise.sub in [(1, 1), (1, 2), (2, 1), (3, 2), (9, 1)]:
        index = np.rint(backend.to_host(images()).reshape(-1)).astype(int)
        np.testing.assert_array_equal(backend.to_host(points()), POINTS[index])


def test_an_epoch_of_points_is_one_pass(backend) -> None:
    noise = Noise(0, backend)
    sample = PointBatches(POINTS, 5, noise)
    seen = []
    for noise.step in (1, 2):
        seen += backend.to_host(sample()).tolist()
    assert sorted(map(tuple, seen)) == sorted(map(tuple, POINTS.tolist()))


def test_too_large_a_minibatch_of_points_is_refused() -> None:
    with pytest.raises(DataError, match="a minibatch of 11 cannot be drawn from 10 examples"):
        PointBatches(POINTS, 11, Noise(0, get_backend("numpy")))


def test_foreign_points_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"points must be a numpy.ndarray, got builtins list: convert"
    ):
        PointBatches(POINTS.tolist(), 2, Noise(0, get_backend("numpy")))
    with pytest.raises(TypeError, match=r"p: points must be a numpy.ndarray"):
        PointSet("p", POINTS.tolist())  # type: ignore[arg-type]


def test_labels_of_another_library_are_refused() -> None:
    images, noise = np.zeros((3, 2, 2, 1), np.uint8), Noise(0, get_backend("numpy"))
    with pytest.raises(TypeError, match=r"labels must be a numpy.ndarray, got builtins list"):
        Minibatches(images, 2, noise, (0.0, 1.0), labels=[0, 1, 2])
    with pytest.raises(TypeError, match=r"images must be a numpy.ndarray, got builtins list"):
        Minibatches(images.tolist(), 2, noise, (0.0, 1.0))
    own = images.view(type("Own", (np.ndarray,), {}))
    assert Minibatches(own, 2, noise, (0.0, 1.0))().shape == (2, 2, 2, 1)


@pytest.mark.parametrize("points", [POINTS.astype("float64"), POINTS[0]])
def test_a_set_of_points_is_float32_and_flat(points: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"mine: points must be float32 of shape \(N, D\)"):
        PointSet("mine", points)


def test_a_set_of_points_knows_its_shape() -> None:
    data = PointSet("mine", POINTS)
    assert (data.example_shape, len(data)) == ((2,), 10)
