"""What every data set is: images, labels, perhaps the factors the images were drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import require_numpy
from tinygan.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Labelled images, kept as uint8; minibatches are scaled as they are taken.

    `images`: uint8 (N, H, W, C) in [0, 255], 0 is background. `labels`: uint8 (N,).
    `factors`: for drawn data, name -> (N,) array of what each image was drawn from.
    Raises DataError if shapes, dtypes or lengths disagree.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    factors: dict[str, NDArray[np.generic]] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        require_numpy(images, f"{self.name}: images")
        require_numpy(labels, f"{self.name}: labels")
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (N, H, W, C), "
                f"got {images.dtype} of shape {images.shape}"
            )
        if labels.ndim != 1 or labels.dtype != np.uint8:
            raise DataError(
                f"{self.name}: labels must be uint8 of shape (N,), "
                f"got {labels.dtype} of shape {labels.shape}"
            )
        lengths = {"labels": labels, **(self.factors or {})}
        for what, values in lengths.items():
            if len(values) != len(images):
                raise DataError(f"{self.name}: {len(images)} images but {len(values)} {what}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def examples(self) -> NDArray[np.uint8]:
        """The images."""
        return self.images

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return self.image_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def first(self, n: int | None) -> Dataset:
        """The first n images (None: all)."""
        if n is None or n >= len(self):
            return self
        factors = None
        if self.factors is not None:
            factors = {name: values[:n] for name, values in self.factors.items()}
        return Dataset(self.name, self.images[:n], self.labels[:n], factors)

    def padded(self, size: int | None) -> Dataset:
        """The same images in the middle of size × size pixels of background (None: as they are).

        Raises DataError for images that are larger.
        """
        height, width, _ = self.image_shape
        if size is None or (height, width) == (size, size):
            return self
        if size < max(height, width):
            raise DataError(f"{self.name}: {height}×{width} images do not fit into {size}×{size}")
        before = [0, (size - height) // 2, (size - width) // 2, 0]
        after = [0, size - height - before[1], size - width - before[2], 0]
        images = np.pad(self.images, list(zip(before, after, strict=True)))
        return Dataset(self.name, images, self.labels, self.factors)

    def pixel_means(self) -> NDArray[np.float64]:
        """The mean of every pixel, (H·W·C,), scaled to [0, 1]."""
        flat = self.images.reshape(len(self), -1)
        return np.asarray(flat.mean(axis=0, dtype=np.float64) / 255.0)
