"""Minibatches of images, and their scaling to floats."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tinygan.backend import Array, require_numpy
from tinygan.data.order import Order
from tinygan.errors import DataError, RangeWarning
from tinygan.noise import Noise


class Minibatches:
    """Draws minibatches (m, H, W, C) from a uint8 master copy that lies on the backend.

    Which images come when is the business of `Order`, which `m`, `k` and `replacement` go to.

    Pixels are scaled from 0…255 to `value_range` batch by batch. `reach` is the open or closed
    range that G's output can have, where one is known; DataError if data lie beyond it, and a
    RangeWarning if they fill less than three quarters of it.
    With `labels`, one integer for every image, `labels()` gives those of the minibatch last drawn.
    """

    def __init__(
        self,
        images: Any,
        m: int,
        noise: Noise,
        value_range: tuple[float, float],
        k: int = 1,
        replacement: bool = False,
        reach: tuple[float, float] | None = None,
        labels: Any = None,
        classes: int | None = None,
    ) -> None:
        """`images`: NumPy uint8 (N, H, W, C); `k` minibatches are drawn each step.

        `labels`: NumPy integers (N,), all in [0, classes) where `classes` is given.
        """
        low, high = value_range
        require_numpy(images, "images")
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(f"images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}")
        if not low < high:
            raise DataError(f"pixels cannot be scaled to a range from {low:g} to {high:g}")
        if reach is not None and not (reach[0] <= low and high <= reach[1]):
            raise DataError(
                f"data in [{low:g}, {high:g}] lie outside [{reach[0]:g}, {reach[1]:g}], which is "
                "all that G's output activation can reach: scale the data or change the activation"
            )
        if reach is not None and high - low < 0.75 * (reach[1] - reach[0]):
            warnings.warn(
                f"data in [{low:g}, {high:g}] fill only a part of [{reach[0]:g}, {reach[1]:g}], "
                "which G's output activation reaches: D tells fakes by pixels that no image has. "
                "Scale the data to the whole of it, or change the activation",
                RangeWarning,
                stacklevel=2,
            )
        on_host = noise.backend.name == "numpy"  # there the master copy is the data set itself
        self.images = images if on_host else noise.backend.from_host(images)
        self.order, self.noise = Order(len(images), m, noise, k, replacement), noise
        self.scale, self.shift = (high - low) / 255.0, low
        self._out = noise.backend.empty((m, *images.shape[1:]))
        self._labels = None if labels is None else _checked(labels, len(images), classes, noise)
        self._index: Array | None = None  # of the minibatch last drawn

    def __call__(self) -> Array:
        """The minibatch that belongs to where `noise` stands; a loan until the next call."""
        self._index = index = self.order()
        return self.noise.backend.gather_images(
            self.images, index, self.scale, self.shift, out=self._out
        )

    def labels(self) -> Array:
        """The labels (m,) of the minibatch last drawn, int64 on the backend."""
        if self._labels is None:
            raise RuntimeError("these minibatches have no labels: pass labels= when making them")
        if self._index is None:
            raise RuntimeError("no minibatch has been drawn yet whose labels there could be")
        return self._labels[self._index]


def _checked(labels: Any, n: int, classes: int | None, noise: Noise) -> Array:
    """NumPy labels (n,) on the backend, int64: what a Condition layer cannot check on a GPU."""
    require_numpy(labels, "labels")
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {n} integers, as many as images; got {labels.dtype} {labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        expected = "0 and up" if classes is None else f"0 ... {classes - 1}"
        raise DataError(f"labels lie in [{low}, {high}], expected {expected}")
    return noise.backend.from_host(labels.astype(np.int64), np.int64)
