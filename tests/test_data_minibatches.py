"""Minibatches: what they refuse, and where they begin."""

from __future__ import annotations

import numpy as np
import pytest

from tinygan.backend import get_backend
from tinygan.data import Minibatches
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
