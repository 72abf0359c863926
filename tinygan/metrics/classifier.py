"""A small classifier of images, trained by this library: does G draw what it was asked for?

Derivation of its loss: docs/conditional.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygan.backend import Array, Backend
from tinygan.nn import Cache, Conv2D, Dense, Dropout, Flatten, Network, ReLU, Sequential
from tinygan.nn.initialisers import he_normal
from tinygan.noise import Noise
from tinygan.optim import Adam, ramp

VERSION = 1  # of the layers below and of how they are trained; RECIPE has the numbers


@dataclass(frozen=True)
class Recipe:
    """Widths of the two convolutions and the dense layer, and how they are trained.

    Images are moved at random by up to `shift` pixels; the learning rate falls to 0 in a straight
    line.
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    epochs: int = 5
    batch: int = 100
    lr: float = 2e-3
    keep: float = 0.5
    shift: int = 2
    seed: int = 0


RECIPE = Recipe()


def make_classifier(
    image_shape: tuple[int, int, int], classes: int, backend: Backend, recipe: Recipe = RECIPE
) -> Network:
    """Images (N, H, W, C) in [0, 1] -> logits (N, classes)."""
    height, width, channels = image_shape
    one, two, three = recipe.widths
    flat = -(-height // 4) * -(-width // 4) * two
    body = Sequential(
        Conv2D(channels, one, 5, stride=2, W=he_normal()),
        ReLU(),
        Conv2D(one, two, 5, stride=2, W=he_normal()),
        ReLU(),
        Flatten(),
        Dense(flat, three, W=he_normal()),
        ReLU(),
        Dropout(recipe.keep),
        Dense(three, classes),
    )
    return Network(body, image_shape, backend, "classifier", Noise(recipe.seed, backend))


def softmax_cross_entropy(logits: Array, labels: Array, cache: Cache) -> tuple[Array, Array]:
    """Mean of -log softmax(logits)[label], a 0-d array, and its gradient (N, classes).

    `labels`: integers (N,). Stable at any size of the logits.
    """
    xp, (n, classes) = cache.backend.xp, logits.shape
    one_hot = labels[:, None] == xp.arange(classes)
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = xp.exp(shifted).sum(axis=1, keepdims=True)
    loss = (xp.log(total[:, 0]) - (shifted * one_hot).sum(axis=1)).mean()  # [cond.7]
    d = xp.exp(shifted, out=cache.new("d", logits.shape))
    d /= total
    d -= one_hot
    d /= n  # (softmax - one_hot) / N  [cond.8]
    return loss, d


def train_classifier(
    network: Network,
    images: Any,
    labels: Any,
    recipe: Recipe = RECIPE,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train on NumPy uint8 images (N, H, W, C) and integer labels (N,), as `recipe` says.

    `report` hears the number of each finished epoch and its mean loss.
    """
    backend, noise = network.backend, Noise(recipe.seed, network.backend)
    border = [(0, 0), *[(recipe.shift, recipe.shift)] * 2, (0, 0)]
    padded = backend.from_host(np.pad(images, border))
    targets = backend.from_host(np.asarray(labels, np.int64))
    batches = max(1, len(images) // recipe.batch)
    optimiser = Adam(network, ramp(recipe.lr, 0.0, batches * recipe.epochs))
    site, losses = network.cache("train", noise=noise), network.cache("loss")
    for epoch in range(recipe.epochs):
        order = noise.at(step=epoch).permutation("epoch", len(images))
        total = 0.0
        for batch in range(batches):
            noise.step = epoch * batches + batch
            index = order[batch * recipe.batch : (batch + 1) * recipe.batch]
            x = _moved(padded, index, network.input_shape, recipe.shift, noise, site)
            loss, d = softmax_cross_entropy(network.forward(x, site), targets[index], losses)
            network.gradients.fill(0)
            network.backward(d, site, input_grad=False)
            optimiser.step()
            total = total + loss
        report(epoch + 1, float(total) / batches)


def _moved(
    padded: Array, index: Array, shape: tuple[int, ...], shift: int, noise: Noise, site: Cache
) -> Array:
    """The images `index`, each moved by up to `shift` pixels, as floats in [0, 1]."""
    xp, n = noise.backend.xp, len(index)
    top, left = noise.integers("shift", 2 * n, 2 * shift + 1).reshape(2, n, 1, 1)
    rows = top + xp.arange(shape[0])[:, None]
    columns = left + xp.arange(shape[1])
    x = site.images("x", (n, *shape))
    return xp.multiply(padded[index[:, None, None], rows, columns], 1.0 / 255.0, out=x)


def predict(network: Network, images: Any, batch: int = 500) -> Any:
    """The likeliest class of each image, int64 (N,).

    `images`: NumPy, uint8 or floats in [0, 1], (N, H, W, C).
    """
    site, backend = network.cache("predict", train=False), network.backend
    scale = 1.0 / 255.0 if images.dtype == np.uint8 else 1.0
    answers = np.empty(len(images), np.int64)
    for start in range(0, len(images), batch):
        part = images[start : start + batch] * scale
        x = backend.from_host(part.astype(np.float64), backend.dtype)
        logits = backend.to_host(network.forward(x, site))
        answers[start : start + batch] = logits.argmax(axis=1)
    return answers


def agreement(predicted: Any, asked: Any, classes: int) -> tuple[float, list[float]]:
    """The share of images in which the class asked for is seen, of all and for each class.

    `predicted`, `asked`: integers (N,). A class that was not asked for has the share NaN.
    """
    hits = predicted == asked
    counts = np.bincount(asked, minlength=classes)
    with np.errstate(invalid="ignore"):
        each = np.bincount(asked, weights=hits, minlength=classes) / counts
    return float(hits.mean()), [float(share) for share in each]
