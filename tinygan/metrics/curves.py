"""How far generated curves are from the family they should belong to. See docs/sine-curve.md."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygan.data.curves import NOISE, SINE, amplitude_range
from tinygan.errors import DataError, ShapeError

Floats = NDArray[np.float64]

# E|0.02 N(0, 1)|: what a real curve has to its own sine without noise.  [sine.2]
FLOOR = NOISE * math.sqrt(2.0 / math.pi)


def best_amplitude(curves: ArrayLike) -> Floats:
    """For each of the curves (N, 15) the a for which mean |y - a sin(πx)| is least: (N,).

    It is the median of y / s with the weights |s|, s = sin(πx): [sine.1]. Raises ShapeError or
    DataError.
    """
    y = _checked(curves)
    seen = np.abs(SINE) > 1e-9  # at the zeros of the sine no amplitude helps
    s = SINE[seen]
    ratios = y[:, seen] / s
    order = np.argsort(ratios, axis=1)
    below = np.cumsum(np.abs(s)[order], axis=1)
    middle = (below >= below[:, -1:] / 2).argmax(axis=1)
    a: Floats = np.take_along_axis(np.sort(ratios, axis=1), middle[:, None], axis=1)[:, 0]
    return a


class Fit(NamedTuple):
    """For every curve its nearest member a sin(πx) of the family, and how far that is: (N,)."""

    amplitude: Floats
    distance: Floats


def nearest_sines(curves: ArrayLike, family: str) -> Fit:
    """The nearest member of the `family` (a name of AMPLITUDES) to each of the curves (N, 15).

    Distance is the mean absolute difference over the 15 points, and the amplitude the one in the
    family's bounds for which it is least. Raises ShapeError or DataError.
    """
    y = _checked(curves)
    amplitude = np.clip(best_amplitude(y), *amplitude_range(family))  # the distance is convex in a
    return Fit(amplitude, np.abs(y - amplitude[:, None] * SINE).mean(axis=1))


def noise_of(curves: ArrayLike, family: str) -> float:
    """How much the curves (N, 15) differ once their nearest sines are taken away: about 0.02.

    The standard deviation over the curves, root mean square over the points. A G that has learned
    the sine and not the noise falls short of what real curves have, however close it comes.
    """
    y = _checked(curves)
    rest = y - nearest_sines(y, family).amplitude[:, None] * SINE
    return float(np.sqrt(rest.var(axis=0).mean()))


def _checked(curves: ArrayLike) -> Floats:
    y = np.asarray(curves, dtype=np.float64)
    if y.ndim != 2 or y.shape[1:] != SINE.shape or not len(y):
        raise ShapeError(f"curves must be (N, {len(SINE)}) with N at least 1, got {y.shape}")
    if not np.isfinite(y).all():
        raise DataError("curves have values that are NaN or infinite")
    return y
