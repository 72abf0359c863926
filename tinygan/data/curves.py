"""Sine arcs: curves of 15 points, for the smallest GAN that one can look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import get_backend
from tinygan.data.points import PointSet
from tinygan.errors import DataError
from tinygan.noise import Noise

PLACES = np.linspace(-1.0, 1.0, 15)  # the x of every curve
SINE = np.sin(np.pi * PLACES)
NOISE = 0.02  # standard deviation at each point
AMPLITUDES = {"sine-curve": (1.0, 1.0), "sine-family": (1.0, 2.0)}  # lower and upper bound


def curves(n: int = 100_000, seed: int = 0, family: bool = False) -> PointSet:
    """`n` curves y = a sin(πx) + 0.02 N(0, 1) at the 15 PLACES: float32 (n, 15).

    sine-curve: a = 1. sine-family: a ~ U(1, 2), one for each curve. The noise is drawn for each
    point of each curve. Deterministic in `seed`, and the first curves of a longer set.
    Raises DataError for n < 1, OptionError for a seed out of range.
    """
    if n < 1:
        raise DataError(f"curves needs n >= 1, got {n}")
    name = "sine-family" if family else "sine-curve"
    noise = Noise(seed, get_backend("numpy", "float64"))
    a = noise.uniform(f"{name}: amplitudes", (n, 1), *AMPLITUDES[name])
    y = a * SINE + noise.normal(f"{name}: noise", (n, len(PLACES)), NOISE)
    return PointSet(name, y.astype(np.float32))


def bounds(name: str) -> NDArray[np.float64]:
    """The two curves (2, 15) without noise between which those of the family `name` lie."""
    return np.multiply.outer(amplitude_range(name), SINE)


def amplitude_range(name: str) -> tuple[float, float]:
    """The lower and upper bound of a in the family `name`; DataError if there is none."""
    if name not in AMPLITUDES:
        raise DataError(f"unknown curves {name!r}: expected one of {', '.join(AMPLITUDES)}")
    return AMPLITUDES[name]
