"""What a preset is: the whole recipe of a GAN as plain values and the functions that build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinygan.backend import Array, Backend
from tinygan.errors import OptionError
from tinygan.gan.objectives import HALVED
from tinygan.nn import BatchNorm, Condition, Layer, LayerNorm, Network, Pack, Sequential
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


def packed(packing: int) -> list[Layer]:
    """The layer that hands D `packing` samples at a time; none for the usual one."""
    return [Pack(packing)] if packing > 1 else []


def with_layer_norm(body: Sequential) -> Sequential:
    """The same layers, those that normalise over the batch replaced: it may then be penalised."""
    if not any(isinstance(f, BatchNorm) for f in body.layers):
        raise OptionError("--d-norm layer: this D has no BatchNorm that LayerNorm could replace")
    return Sequential(*[_layer_norm(f) if isinstance(f, BatchNorm) else f for f in body.layers])


def _layer_norm(norm: BatchNorm) -> Layer:
    swapped = LayerNorm(norm.n, norm.eps)
    swapped.parameters = norm.parameters  # gamma and beta start alike
    return swapped


@dataclass(frozen=True)
class Preset:
    """A recipe. A command line overrides fields by `dataclasses.replace`.

    generator(pixel_means, labels)  builds G; `pixel_means` (NumPy, H·W·C, in [0, 1]) or None for a
                             G that will be loaded from a checkpoint
    discriminator(labels, packing)  builds D, ending in one logit for every `packing` samples
    optimiser(net, lr, n)    makes a player's optimiser; n is the number of steps in an epoch
    lr, batch_size           learning rate of both players, D's answers in a minibatch
    order, k                 who moves when, and D's updates for each of G's
    objective, loss, halved  what the players want: see `make_objective`
    latent, prior            how many numbers z has, and what they are drawn from
    grid                     rows and columns of the pictures of samples
    kind                     what G makes: "images", "points" of a plane, or "curves"
    data                     the data set, unless another one of this kind is asked for
    value_range              of the pixels, as G's output activation has them
    labels                   what both players are told about each image
    real_target              D's label for real samples; 0.9, say, smooths one-sidedly
    penalty, penalty_weight  on D's gradient at its inputs: "gp", "gp-one-sided", "r1", "r2"
    clip                     D's parameters are kept in [-clip, clip]
    instance_noise           standard deviation of the noise on all that D sees
    packing                  how many samples D judges at once
    d_norm                   "layer" puts a LayerNorm in place of each BatchNorm of D
    combined                 D sees fakes and real images as one batch
    flipped, label_noise     D's targets are fake 1, real 0; to them, label_noise·U(0, 1) is added
    steps or epochs          how long the source trains
    train_images             how many of the training images are used (None: all)
    image_size               height and width of the images, padded with background (None: as is)
    ..._every                how often, in steps; or ..._every_epochs
    keep_last, keep_every    which checkpoints are kept: see `Run`
    """

    name: str
    source: str
    summary: str
    generator: Callable[[Any, Labels], Sequential]
    discriminator: Callable[[Labels, int], Sequential]
    optimiser: Callable[[Network, float, int], Optimiser]
    lr: float
    batch_size: int
    order: str
    kind: str = "images"
    data: str = "mnist"
    value_range: tuple[float, float] = (-1.0, 1.0)
    latent: int = 100
    prior: str = "normal"
    labels: Labels = UNLABELLED
    k: int = 1
    objective: str = "non-saturating"
    loss: str = "logits"
    halved: bool = True
    real_target: float = 1.0
    penalty: str | None = None
    penalty_weight: float = 10.0
    clip: float | None = None
    instance_noise: float = 0.0
    packing: int = 1
    d_norm: str | None = None
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

    def make_discriminator(self) -> Sequential:
        """D's layers, with labels, packing and the kind of normalisation that is asked for."""
        if self.packing > 1 and self.labels.classes:
            raise OptionError(
                "--packing does not go with --conditional: samples of one pack have no one label"
            )
        body = self.discriminator(self.labels, self.packing)
        return with_layer_norm(body) if self.d_norm == "layer" else body

    @property
    def halves_loss(self) -> bool:
        """Whether D's loss is the mean of its two halves; some objectives know only the sum."""
        return self.halved and self.objective in HALVED

    @property
    def samples_per_batch(self) -> int:
        """Samples in a minibatch: `batch_size` is how many of D's answers there are."""
        return self.batch_size * self.packing

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
