"""GANs of the plane: small enough to see everything that they do. See docs/worlds.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinygan.nn import (
    BatchNorm,
    Dense,
    Layer,
    LeakyReLU,
    Maxout,
    Network,
    ReLU,
    Sequential,
)
from tinygan.nn.initialisers import he_normal, normal
from tinygan.optim import Adam, Optimiser, hold
from tinygan.presets.preset import Labels, Preset, packed

# ---- ring-published ----------------------------------------------------------------------------

tiny = normal(0.02)  # every weight of the source starts so


def published_norm(n: int) -> BatchNorm:
    """BatchNorm with the source's constants."""
    return BatchNorm(n, momentum=0.95, eps=1e-4)


def published_generator(pixel_means: Any, labels: Labels) -> Sequential:
    layers: list[Layer] = []
    for n_in in (2, 400, 400, 400):
        layers += [Dense(n_in, 400, W=tiny, b=None), published_norm(400), ReLU()]
    return Sequential(*layers, Dense(400, 2, W=tiny))


def published_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        Maxout(2 * packing, units=200, pieces=5, W=tiny),
        Maxout(200, units=200, pieces=5, W=tiny),
        Maxout(200, units=200, pieces=5, W=tiny),
        Dense(200, 1, W=tiny),
    )


def published_adam(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """Adam with the source's beta1."""
    return Adam(network, lr, beta1=0.8)


RING_PUBLISHED = Preset(
    name="ring-published",
    source="PacGAN (Lin et al. 2018), the 2-D ring",
    summary="a G of 4×400 with BatchNorm against three layers of maxout; drops modes",
    generator=published_generator,
    discriminator=published_discriminator,
    optimiser=published_adam,
    lr=1e-4,
    batch_size=100,
    order="simultaneous",
    kind="points",
    data="ring",
    latent=2,
    halved=False,
    steps=400_000,
    grid=(50, 50),
    sample_every=5000,
    checkpoint_every=5000,
    log_every=100,
)

# ---- ring-best ---------------------------------------------------------------------------------


def best_generator(pixel_means: Any, labels: Labels) -> Sequential:
    layers: list[Layer] = []
    for n_in in (2, 128, 128):
        layers += [Dense(n_in, 128, W=he_normal()), ReLU()]
    return Sequential(*layers, Dense(128, 2))


def best_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    layers = packed(packing)
    for n_in in (2 * packing, 128, 128):
        layers += [Dense(n_in, 128, W=he_normal()), LeakyReLU(0.2)]
    return Sequential(*layers, Dense(128, 1))


def best_adam(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """Adam, its rate held for 10 000 steps and brought down over the next 10 000: G settles."""
    return Adam(network, hold(lr, 10_000, 20_000), beta1=0.5)


RING_BEST = replace(
    RING_PUBLISHED,
    name="ring-best",
    source="found by trial, see docs/results.md#ring-best",
    summary="three layers of 128 each, no BatchNorm, a falling rate; covers all modes in minutes",
    generator=best_generator,
    discriminator=best_discriminator,
    optimiser=best_adam,
    lr=1e-3,
    batch_size=256,
    steps=20_000,
    sample_every=250,
)
