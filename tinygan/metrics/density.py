"""Densities over the plane, blurred alike, and the best D against such fakes: docs/worlds.md."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygan.data.points import Mixture

Floats = NDArray[np.float64]


def blurred_mixture(mixture: Mixture, x: Floats, y: Floats, width: float) -> Floats:
    """The mixture's density after Gaussian noise of std `width`, at (x[j], y[i]): [worlds.7].

    `x` (X,) and `y` (Y,) are coordinates of a grid; the result is (Y, X).
    """
    return _mean_of_bells(mixture.means, x, y, float(np.hypot(mixture.std, width)))


def blurred_samples(samples: NDArray[Any], x: Floats, y: Floats, width: float) -> Floats:
    """The density of samples (n, 2) after the same noise: a Gaussian on each of them [worlds.8]."""
    return _mean_of_bells(np.asarray(samples, np.float64), x, y, width)


def best_discriminator(p: Floats, q: Floats, packing: int = 1) -> Floats:
    """D* = p^m / (p^m + q^m) where D sees m copies of a place: [worlds.9]; NaN where p = q = 0."""
    with np.errstate(invalid="ignore"):
        share = p / (p + q)  # first: powers of densities may overflow
        return np.asarray(share**packing / (share**packing + (1.0 - share) ** packing))


def _mean_of_bells(centres: Floats, x: Floats, y: Floats, std: float) -> Floats:
    """The mean over the centres of N(·; centre, std² I) on a grid.

    A round Gaussian is a product of one in x and one in y, and so the sum over the centres is a
    product of two matrices.
    """
    in_x, in_y = (_bells(axis, centres[:, i], std) for i, axis in enumerate((x, y)))
    return np.asarray(in_y.T @ in_x) / len(centres)


def _bells(axis: Floats, centres: Floats, std: float) -> Floats:
    """N(axis[j]; centres[i], std²) as (centres, axis)."""
    scaled = (axis - centres[:, None]) / std
    bells = np.exp(-0.5 * scaled**2)
    bells /= std * np.sqrt(2.0 * np.pi)
    return np.asarray(bells)
