"""The sine-curve GANs. Each deviation from the source is named in docs/sine-curve.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinygan.nn import Network, ReLU, Sequential
from tinygan.optim import Adam, Optimiser
from tinygan.presets.mlp import torch_dense
from tinygan.presets.preset import Labels, Preset, packed

POINTS = 15  # of a curve


def sine_generator(pixel_means: Any, labels: Labels) -> Sequential:
    return Sequential(torch_dense(5, 128), ReLU(), torch_dense(128, POINTS))


def sine_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        torch_dense(POINTS * packing, 128),
        ReLU(),
        torch_dense(128, 1),
    )


def adam(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """Adam as published, beta1 = 0.9 and beta2 = 0.999."""
    return Adam(network, lr)


SINE_CURVE = Preset(
    name="sine-curve",
    source="PyTorch tutorial that paints curves",
    summary="one sine arc of 15 points; the minimax loss itself, both gradients from one pass",
    generator=sine_generator,
    discriminator=sine_discriminator,
    optimiser=adam,
    lr=1e-4,
    batch_size=64,
    order="simultaneous",
    kind="curves",
    data="sine-curve",
    latent=5,
    objective="minimax",
    halved=False,
    steps=10_000,
    grid=(3, 4),
    sample_every=50,
    checkpoint_every=1000,
    keep_last=60,  # they are small, and the mean of many is better than any: docs/sine-curve.md
)

SINE_FAMILY = replace(
    SINE_CURVE,
    name="sine-family",
    summary="the same for a family of arcs, amplitude uniform in [1, 2]",
    data="sine-family",
    steps=60_000,
    sample_every=250,
)
