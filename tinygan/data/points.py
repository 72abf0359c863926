"""Data sets of vectors: points of a plane, curves sampled at fixed places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import Array, require_numpy
from tinygan.data.order import Order
from tinygan.errors import DataError
from tinygan.noise import Noise


class Mixture(NamedTuple):
    """Equally likely Gaussians: means (K, D), and one standard deviation for all of them."""

    means: NDArray[np.float64]
    std: float


@dataclass(frozen=True)
class PointSet:
    """Vectors as the players see them: float32 (N, D).

    `mixture`: what they were drawn from, where that is known, in the same scale.
    `shift`, `scale`: the user's own numbers are points·scale + shift.
    Raises DataError for another shape or dtype.
    """

    name: str
    points: NDArray[np.float32]
    mixture: Mixture | None = None
    shift: float | NDArray[np.float64] = 0.0  # one number, or one for each of the D
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_numpy(self.points, f"{self.name}: points")
        if self.points.ndim != 2 or self.points.dtype != np.float32:
            raise DataError(
                f"{self.name}: points must be float32 of shape (N, D), "
                f"got {self.points.dtype} of shape {self.points.shape}"
            )

    def __len__(self) -> int:
        return len(self.points)

    @property
    def examples(self) -> NDArray[np.float32]:
        """The points."""
        return self.points

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(D,)"""
        return self.points.shape[1:]


class PointBatches:
    """Draws minibatches (m, D) from points that lie on the backend, in the order of an `Order`."""

    def __init__(
        self,
        points: Any,
        m: int,
        noise: Noise,
        k: int = 1,
        replacement: bool = False,
    ) -> None:
        """`points`: NumPy float32 (N, D); `k` minibatches are drawn each step."""
        require_numpy(points, "points")
        self.order = Order(len(points), m, noise, k, replacement)
        self.points = noise.backend.from_host(points)
        self._out = noise.backend.empty((m, *points.shape[1:]))

    def __call__(self) -> Array:
        """The minibatch that belongs to where the noise stands; a loan until the next call."""
        self._out[...] = self.points[self.order()]
        return self._out
