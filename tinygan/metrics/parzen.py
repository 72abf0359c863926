"""The Gaussian Parzen window log-likelihood. Derivation: docs/parzen.md.

Breuleux, Bengio & Vincent 2011; the measure of table 1 of Goodfellow et al. 2014: put a Gaussian
on every sample of G and ask how likely real test points are under their mixture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygan.errors import DataError, OptionError, ShapeError

Floats = NDArray[np.float64]

SIGMAS: tuple[float, ...] = tuple(float(s) for s in np.logspace(-1.0, 0.0, 10))
BATCH = 100  # points at a time: 100 by 10 000 samples is 8 MB of squared distances


@dataclass(frozen=True)
class ParzenScore:
    """Mean log-likelihood of a test point in nats, its standard error, and the width used."""

    mean: float
    standard_error: float
    sigma: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.standard_error:.1f} nats (sigma {self.sigma:.4g})"


def parzen_log_likelihood(
    samples: ArrayLike, points: ArrayLike, sigma: float, batch: int = BATCH
) -> Floats:
    """log (1/n) Σᵢ N(x; sᵢ, σ² I) in nats for every point x: float64 (N,).

    `samples` (n, D) are the sᵢ, `points` (N, D) the x. Everything is computed in float64 (10 000
    samples and 10 000 points of 784 numbers take seconds), `batch` points at a time: beside a
    centred copy of the samples it holds two arrays of batch × n numbers.
    Raises ShapeError, DataError (NaN, infinity, no numbers), OptionError (sigma, batch).
    """
    samples, points = _matrices(samples=samples, points=points)
    (sigma,) = _positive_sigmas([sigma])
    result = np.empty(len(points))
    for rows, squared in _squared_distances(samples, points, batch):
        result[rows] = _log_mixture(squared, sigma, samples.shape[1])
    return result


def choose_sigma(
    samples: ArrayLike,
    validation: ArrayLike,
    sigmas: Sequence[float] = SIGMAS,
    batch: int = BATCH,
) -> float:
    """The width among `sigmas` that makes `validation` (N, D) likeliest, given `samples` (n, D).

    Never choose it on the test points: the score would flatter itself.
    Raises ShapeError, DataError, OptionError as `parzen_log_likelihood` does.
    """
    samples, validation = _matrices(samples=samples, validation=validation)
    widths = _positive_sigmas(sigmas)
    totals = np.zeros(len(widths))
    for _, squared in _squared_distances(samples, validation, batch):
        for i, sigma in enumerate(widths):  # the distances serve every width
            totals[i] += _log_mixture(squared, sigma, samples.shape[1]).sum()
    return widths[int(totals.argmax())]  # argmax over sigma of Σ log p  [parzen.2]


def parzen(
    samples: ArrayLike,
    validation: ArrayLike,
    test: ArrayLike,
    sigmas: Sequence[float] = SIGMAS,
    batch: int = BATCH,
) -> ParzenScore:
    """The protocol of Goodfellow et al. 2014, table 1: sigma from `validation`, score on `test`.

    All three are (N, D) with values in [0, 1]: the figure depends on the scale, so that images in
    another range are refused (DataError), not scored. The standard error is std / sqrt(N) over
    the test points; it says nothing of the spread between sets of samples.
    """
    arrays = _matrices(samples=samples, validation=validation, test=test)
    for name, array in zip(("samples", "validation", "test"), arrays, strict=True):
        low, high = float(array.min()), float(array.max())
        if low < 0.0 or high > 1.0:
            raise DataError(
                f"parzen: {name} reach from {low:g} to {high:g}, expected values in [0, 1]: "
                "rescale them, as (x + 1) / 2 does for images in [-1, 1]"
            )
    sigma = choose_sigma(arrays[0], arrays[1], sigmas, batch)
    scores = parzen_log_likelihood(arrays[0], arrays[2], sigma, batch)
    error = float(scores.std()) / math.sqrt(len(scores))  # std / sqrt(N)  [parzen.2]
    return ParzenScore(float(scores.mean()), error, sigma)


def _log_mixture(squared: Floats, sigma: float, dimensions: int) -> Floats:
    """log of the mixture's density, from the squared distances (points, samples)."""
    nearest = squared.min(axis=1)
    # Factor the nearest sample's term out: the largest exponent is then 0 and nothing underflows
    # to log 0, which it otherwise would at every point of MNIST.
    exponents = nearest[:, None] - squared
    exponents /= 2.0 * sigma**2
    np.exp(exponents, out=exponents)
    log_kernels = np.log(exponents.mean(axis=1)) - nearest / (2.0 * sigma**2)
    # log p(x) = logmeanexpᵢ(-|x - sᵢ|² / 2σ²) - D/2 log 2πσ²  [parzen.1]
    density: Floats = log_kernels - 0.5 * dimensions * math.log(2.0 * math.pi * sigma**2)
    return density


def _squared_distances(
    samples: Floats, points: Floats, batch: int
) -> Iterator[tuple[slice, Floats]]:
    """(rows, |xⱼ - sᵢ|² as (batch, n)) by one matrix product for every batch of points."""
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise OptionError(f"parzen: batch must be a positive whole number, got {batch!r}")
    # |x - s|² = |x|² - 2 x·s + |s|² loses what |x|² has too much: first move the middle to 0.
    centre = samples.mean(axis=0)
    samples = samples - centre
    sample_norms = np.einsum("ij,ij->i", samples, samples)
    for start in range(0, len(points), batch):
        rows = slice(start, min(start + batch, len(points)))
        x = points[rows] - centre
        squared = x @ samples.T
        squared *= -2.0
        squared += np.einsum("ij,ij->i", x, x)[:, None]
        squared += sample_norms
        yield rows, np.maximum(squared, 0.0, out=squared)  # rounding may fall below 0


def _matrices(**arrays: Any) -> list[Floats]:
    """The arrays in float64, all (N, D) of one D, N and D at least 1, everything finite."""
    result: list[Floats] = []
    for name, array in arrays.items():
        try:
            matrix = np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError) as why:
            raise DataError(f"parzen: {name} must be an array of real numbers: {why}") from None
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ShapeError(
                f"parzen: {name} must be (N, D) with N and D at least 1, got {matrix.shape}: "
                "flatten images by reshape(len(x), -1)"
            )
        if result and matrix.shape[1] != result[0].shape[1]:
            raise ShapeError(
                f"parzen: {name} must be (N, {result[0].shape[1]}) as the samples are, "
                f"got {matrix.shape}"
            )
        bad = int(matrix.size - np.count_nonzero(np.isfinite(matrix)))
        if bad:
            raise DataError(f"parzen: {name} have {bad} values that are NaN or infinite")
        result.append(matrix)
    return result


def _positive_sigmas(sigmas: Sequence[float]) -> list[float]:
    widths = [float(sigma) for sigma in sigmas]
    bad = [width for width in widths if not (width > 0.0 and math.isfinite(width))]
    if bad or not widths:
        given = f"got {bad[0]:g}" if bad else "got none"
        raise OptionError(f"parzen: sigma must be positive and finite, {given}")
    return widths
