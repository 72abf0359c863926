"""Worlds of two dimensions, drawn or read from a FILE.npy. See docs/worlds.md."""

from __future__ import annotations

import difflib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import get_backend
from tinygan.data.points import Mixture, PointSet
from tinygan.errors import DataError, first_line
from tinygan.noise import Noise

Array = NDArray[np.float64]

LARGEST = 1e300  # of the user's numbers: what G makes of them is larger, and must be finite, too
THICKNESS = 0.05  # standard deviation of the points about the moons and the swiss roll
DECIMALS = 6  # points are rounded: the last bit of log and cos is not the same on every processor


def ring_mixture() -> Mixture:
    """Eight modes on the unit circle, as PacGAN has them: [worlds.1]."""
    angles = np.arange(8) * (2.0 * math.pi / 8)
    return Mixture(np.stack([np.cos(angles), np.sin(angles)], axis=1), std=0.01)


def grid_mixture() -> Mixture:
    """Five by five modes two apart, as PacGAN has them: [worlds.2]."""
    ticks = np.arange(-4.0, 5.0, 2.0)
    return Mixture(np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(25, 2), std=0.05)


def pair_mixture() -> Mixture:
    """Two round Gaussians four standard deviations apart, so that their 3-sigma discs overlap."""
    return Mixture(np.array([[-1.0, 0.0], [1.0, 0.0]]), std=0.5)


def draw_mixture(mixture: Mixture, n: int, noise: Noise) -> Array:
    """A mode for each of n points, all equally likely, and a Gaussian around it: [worlds.3]."""
    modes = noise.integers("mode", n, len(mixture.means))
    return np.asarray(mixture.means[modes] + noise.normal("spread", (n, 2), std=mixture.std))


def draw_moons(n: int, noise: Noise) -> Array:
    """Two interleaved half circles around the origin, blurred: [worlds.4]."""
    angle = noise.unit("angle", n) * math.pi
    side = 1.0 - 2.0 * noise.integers("moon", n, 2)  # 1: the upper moon, -1: the lower
    x, y = side * (np.cos(angle) - 0.5), side * (np.sin(angle) - 0.25)
    return np.asarray(np.stack([x, y], axis=1) + noise.normal("spread", (n, 2), std=THICKNESS))


def draw_swiss(n: int, noise: Noise) -> Array:
    """One and a half turns of a spiral whose radius grows with the angle, blurred: [worlds.5]."""
    angle = 1.5 * math.pi * (1.0 + 2.0 * noise.unit("angle", n))
    spiral = np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / 7.0
    return np.asarray(spiral + noise.normal("spread", (n, 2), std=THICKNESS))


MIXTURES: dict[str, Callable[[], Mixture]] = {
    "ring": ring_mixture,
    "grid": grid_mixture,
    "gaussians": pair_mixture,
}
DRAWN: dict[str, Callable[[int, Noise], Array]] = {"moons": draw_moons, "swiss": draw_swiss}
WORLDS = (*MIXTURES, *DRAWN)


def load_world(name_or_path: str, n: int = 100_000, seed: int = 0) -> PointSet:
    """The world of that name, `n` points of it; or all the points of a FILE.npy.

    A drawn point is a function of (seed, its index): a longer set begins with a shorter one.
    Raises DataError for an unknown name and for every file that does not hold points.
    """
    if name_or_path not in WORLDS:
        path = Path(name_or_path)
        if path.suffix == ".npy" or path.exists():
            return read_points(path)
        near = difflib.get_close_matches(name_or_path, WORLDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(
            f"unknown data {name_or_path!r}{hint}: expected one of {', '.join(WORLDS)}, "
            "or a FILE.npy with points (N, 2)"
        )
    if n < 1:
        raise DataError(f"{name_or_path}: at least one point must be drawn, not {n}")
    noise = Noise(seed, get_backend("numpy", "float64"))
    mixture = MIXTURES[name_or_path]() if name_or_path in MIXTURES else None
    if mixture is not None:
        points = draw_mixture(mixture, n, noise)
    else:
        points = DRAWN[name_or_path](n, noise)
    return PointSet(name_or_path, np.round(points, DECIMALS).astype(np.float32), mixture)


# ---- the user's own points ---------------------------------------------------------------------


def read_points(path: Path) -> PointSet:
    """Points (N, 2) of a .npy file, finite numbers of any scale, shifted and scaled: [worlds.6].

    Their mean becomes 0 and their mean variance 1, by one common scale: angles are kept. `shift`
    and `scale` of the result lead back. Raises DataError, one line, for every other file.
    """
    points = _checked(_read(path), path)
    if (points == points[0]).all():
        raise DataError(f"{path}: all {len(points)} points are equal: there is nothing to learn")
    unit = float(np.abs(points).max())  # squares of 1e200 or 1e-200 leave float64's range
    if unit > LARGEST:
        raise DataError(f"{path}: a number of {unit:.1e} is too large: divide all by one number")
    scaled = points / unit
    shift = scaled.mean(axis=0)
    centred = scaled - shift
    scale = math.sqrt(float((centred**2).mean()))
    if scale < 1e-14:  # only rounding tells them apart
        raise DataError(
            f"{path}: its points are too near to one another beside {unit:.1e}: "
            "subtract their mean first"
        )
    return PointSet(
        path.name, (centred / scale).astype(np.float32), None, shift * unit, scale * unit
    )


def _read(path: Path) -> NDArray[Any]:
    """The array in a .npy file; pickled objects, which could run code, are never opened."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    if not content.startswith(b"\x93NUMPY"):
        raise DataError(f"{path}: not a .npy file; write it with numpy.save")
    try:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    except Exception as problem:  # a damaged header is Python source that means anything
        why = first_line(problem)
        if why.startswith("Object arrays"):
            raise DataError(f"{path}: it holds Python objects, not numbers") from problem
        raise DataError(f"{path}: damaged or cut short ({why})") from problem


def _checked(array: NDArray[Any], path: Path) -> Array:
    """The array in float64, if it is points of the plane."""
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected real numbers, got an array of {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"{path}: expected points of shape (N, 2), got {array.shape}")
    if len(array) < 2:
        raise DataError(f"{path}: {len(array)} point(s) are too few to learn from")
    points = array.astype(np.float64)
    bad = int(points.size - np.count_nonzero(np.isfinite(points)))
    if bad:
        raise DataError(f"{path}: {bad} of its numbers are NaN or infinite")
    return points
