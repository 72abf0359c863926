"""What a preset is: the whole recipe of a GAN as plain values and two functions that build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinygan.backend import Array, Backend
from tinygan.nn import Condition, Layer, Network, Sequential
from tinygan.noise import Noise
from tinygan.optim import Optimiser


class Labels(NamedTuple):
    """What the players are told about each image: nothing, or which of `classes` it shows.

    The label is joined to z and to D's input, one-hot or, with `embedding`, as a learned vector
    of that many numbers: Mirza & Osindero 2014.
    """

    classes: int = 0
    embedding: int | None = None

    @property
    def width(self) -> int:
        """How many numbers the label adds to each input vector or pixel."""
        return self.embedding or self.classes

    def layers(self) -> list[Layer]:
        """The layer that joins the label to its input; none for a game without labels."""
        return [Condition(self.classes, self.embedding)] if self.classes else []


UNLABELLED = Labels()


@dataclass(frozen=True)
class Preset:
    """A recipe. A command line overrides fields by `dataclasses.replace`.

    generator(pixel_means, labels)  builds G; `pixel_means` (NumPy, H·W·C, in [0, 1]) or None for a
                             G that will be loaded from a checkpoint
    discriminator(labels)    builds D, ending in one logit
    optimiser(net, lr, n)    makes a player's optimiser; n is the number of steps in an epoch
    value_range              of the pixels, as G's output activation has them
    labels                   what both players are told about each image
    combined                 D sees fakes and real images as one batch
    flipped, label_noise     D's targets are fake 1, real 0; to them, label_noise·U(0, 1) is added
    steps or epochs          how long the source trains
    train_images             how many of the training images are used (None: all)
    image_size               height and width of the images, padded with background (None: as is)
    ..._every                how often, in steps; or ..._every_epochs
    """

    name: str
    source: str
    summary: str
    generator: Callable[[Any, Labels], Sequential]
    discriminator: Callable[[Labels], Sequential]
    optimiser: Callable[[Network, float, int], Optimiser]
    lr: float
    batch_size: int
    order: str
    value_range: tuple[float, float] = (-1.0, 1.0)
    latent: int = 100
    prior: str = "normal"
    labels: Labels = UNLABELLED
    k: int = 1
    objective: str = "non-saturating"
    loss: str = "logits"
    halved: bool = True
    combined: bool = False
    flipped: bool = False
    label_noise: float = 0.0
    replacement: bool = False
    steps: int | None = None
    epochs: int | None = None
    train_images: int | None = None
    image_size: int | None = None
    grid: tuple[int, int] = (8, 8)
    sample_every: int | None = None
    sample_every_epochs: int | None = None
    checkpoint_every: int | None = None
    checkpoint_every_epochs: int | None = None
    log_every: int | None = None
    keep_last: int | None = None
    keep_every: int | None = None

    def draw_latent(self, noise: Noise, purpose: str, n: int) -> Array:
        """z (n, latent) from the prior: "normal" N(0, I), or "uniform" of the same variance."""
        shape, r = (n, self.latent), 3.0**0.5
        if self.prior == "uniform":
            return noise.uniform(purpose, shape, -r, r)
        return noise.normal(purpose, shape)

    def draw_labels(self, noise: Noise, purpose: str, n: int) -> Array:
        """Labels (n,), every class as likely as any other."""
        return noise.integers(purpose, n, self.labels.classes)

    def grid_labels(self, backend: Backend) -> Array:
        """Labels (rows·columns,) for a sample grid: a class keeps to its column."""
        rows, columns = self.grid
        return backend.xp.arange(rows * columns) % columns % self.labels.classes
