"""What a preset is: the whole recipe of a GAN as plain values and two functions that build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygan.backend import Array
from tinygan.nn import Network, Sequential
from tinygan.noise import Noise
from tinygan.optim import Optimiser


@dataclass(frozen=True)
class Preset:
    """A recipe. A command line overrides fields by `dataclasses.replace`.

    generator(pixel_means)   builds G; `pixel_means` (NumPy, H·W·C, in [0, 1]) or None for a G that
                             will be loaded from a checkpoint
    discriminator()          builds D, ending in one logit
    optimiser(net, lr, n)    makes a player's optimiser; n is the number of steps in an epoch
    value_range              of the pixels, as G's output activation has them
    steps or epochs          how long the source trains
    train_images             how many of the training images are used (None: all)
    """

    name: str
    source: str
    summary: str
    generator: Callable[[Any], Sequential]
    discriminator: Callable[[], Sequential]
    optimiser: Callable[[Network, float, int], Optimiser]
    lr: float
    batch_size: int
    order: str
    value_range: tuple[float, float] = (-1.0, 1.0)
    latent: int = 100
    prior: str = "normal"
    k: int = 1
    objective: str = "non-saturating"
    loss: str = "logits"
    halved: bool = True
    replacement: bool = False
    steps: int | None = None
    epochs: int | None = None
    train_images: int | None = None
    grid: tuple[int, int] = (8, 8)
    sample_every: int | None = None
    checkpoint_every: int | None = None
    keep_every: int | None = None

    def draw_latent(self, noise: Noise, purpose: str, n: int) -> Array:
        """z (n, latent) from the prior: "normal" N(0, I), or "uniform" of the same variance."""
        shape, r = (n, self.latent), 3.0**0.5
        if self.prior == "uniform":
            return noise.uniform(purpose, shape, -r, r)
        return noise.normal(purpose, shape)
