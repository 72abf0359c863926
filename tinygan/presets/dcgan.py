"""The DCGANs. Shapes beside the layers are those of one image; docs/dcgan.md says why they are so.

Each deviation from its source is named on the preset's line in docs/presets.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinygan.backend import Array
from tinygan.nn import (
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    MaxPool2D,
    Network,
    ReLU,
    Reshape,
    Sequential,
    Tanh,
)
from tinygan.nn.initialisers import normal, zeros
from tinygan.nn.layer import Shape
from tinygan.noise import Noise
from tinygan.optim import Adam, Optimiser
from tinygan.presets.mlp import adam_half
from tinygan.presets.preset import Labels, Preset, packed


def keras_adam(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """Adam with Keras' defaults: beta1 = 0.9 as published, and this epsilon."""
    return Adam(network, lr, eps=1e-7)


def keras_norm(n: int) -> BatchNorm:
    """BatchNorm with Keras' defaults."""
    return BatchNorm(n, momentum=0.99, eps=1e-3)


# ---- dcgan-tf ----------------------------------------------------------------------------------


def tf_generator(pixel_means: Any, labels: Labels) -> Sequential:
    return Sequential(
        *labels.layers(),
        Dense(100 + labels.width, 7 * 7 * 256, b=None),
        keras_norm(7 * 7 * 256),
        LeakyReLU(0.3),
        Reshape(7, 7, 256),
        ConvTranspose2D(256, 128, 5, stride=1, b=None),  # 7×7×128
        keras_norm(128),
        LeakyReLU(0.3),
        ConvTranspose2D(128, 64, 5, stride=2, b=None),  # 14×14×64
        keras_norm(64),
        LeakyReLU(0.3),
        ConvTranspose2D(64, 1, 5, stride=2, b=None),  # 28×28×1
        Tanh(),
    )


def tf_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        *labels.layers(),
        Conv2D(packing + labels.width, 64, 5, stride=2),  # 14×14×64
        LeakyReLU(0.3),
        Dropout(keep=0.7),
        Conv2D(64, 128, 5, stride=2),  # 7×7×128
        LeakyReLU(0.3),
        Dropout(keep=0.7),
        Flatten(),
        Dense(7 * 7 * 128, 1),
    )


DCGAN_TF = Preset(
    name="dcgan-tf",
    source="DCGAN tutorial of TensorFlow",
    summary="dense start, three transposed convolutions; D with dropout and no BatchNorm",
    generator=tf_generator,
    discriminator=tf_discriminator,
    optimiser=keras_adam,
    lr=1e-4,
    batch_size=256,
    order="simultaneous",
    combined=True,  # without BatchNorm in D the same gradients, by fewer and larger products
    halved=False,
    epochs=50,
    grid=(4, 4),
    sample_every_epochs=10,
    checkpoint_every_epochs=15,
    keep_last=5,
)


# ---- dcgan-radford: the five rules of Radford et al. 2015 --------------------------------------

small = normal(0.02)  # "All weights were initialized from a zero-centered Normal distribution"


def radford_norm(n: int) -> BatchNorm:
    """BatchNorm whose scales start as N(1, 0.02²), as in the code of the paper."""
    norm = BatchNorm(n, momentum=0.9, eps=1e-5)
    norm.parameters["gamma"] = ((n,), around_one)
    return norm


def around_one(noise: Noise, purpose: str, shape: Shape) -> Array:
    return 1.0 + noise.normal(purpose, shape, 0.02)


def up(c_in: int, c_out: int, kernel: int = 5, stride: int = 2, **rest: Any) -> ConvTranspose2D:
    """Twice as wide and high; without a bias, which the BatchNorm behind it would subtract."""
    return ConvTranspose2D(c_in, c_out, kernel, stride, **{"W": small, "b": None, **rest})


def down(c_in: int, c_out: int, kernel: int = 5, stride: int = 2, **rest: Any) -> Conv2D:
    """Half as wide and high."""
    return Conv2D(c_in, c_out, kernel, stride, **{"W": small, "b": None, **rest})


def radford_generator(pixel_means: Any, labels: Labels) -> Sequential:
    latent = 100 + labels.width
    return Sequential(
        *labels.layers(),
        Reshape(1, 1, latent),
        up(latent, 128, kernel=7, stride=1, padding="VALID"),  # 7×7×128
        radford_norm(128),
        ReLU(),
        up(128, 64),  # 14×14×64
        radford_norm(64),
        ReLU(),
        up(64, 1, b=zeros),  # 28×28×1
        Tanh(),
    )


def radford_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        *labels.layers(),
        down(packing + labels.width, 64, b=zeros),  # 14×14×64
        LeakyReLU(0.2),
        down(64, 128),  # 7×7×128
        radford_norm(128),
        LeakyReLU(0.2),
        down(128, 1, kernel=7, stride=1, padding="VALID", b=zeros),  # 1×1×1
        Flatten(),
    )


def radford_32_generator(pixel_means: Any, labels: Labels) -> Sequential:
    latent = 100 + labels.width
    return Sequential(
        *labels.layers(),
        Reshape(1, 1, latent),
        up(latent, 256, kernel=4, stride=1, padding="VALID"),  # 4×4×256
        radford_norm(256),
        ReLU(),
        up(256, 128),  # 8×8×128
        radford_norm(128),
        ReLU(),
        up(128, 64),  # 16×16×64
        radford_norm(64),
        ReLU(),
        up(64, 1, b=zeros),  # 32×32×1
        Tanh(),
    )


def radford_32_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        *labels.layers(),
        down(packing + labels.width, 64, b=zeros),  # 16×16×64
        LeakyReLU(0.2),
        down(64, 128),  # 8×8×128
        radford_norm(128),
        LeakyReLU(0.2),
        down(128, 256),  # 4×4×256
        radford_norm(256),
        LeakyReLU(0.2),
        down(256, 1, kernel=4, stride=1, padding="VALID", b=zeros),  # 1×1×1
        Flatten(),
    )


DCGAN_RADFORD = Preset(
    name="dcgan-radford",
    source="Radford et al. 2015, at 28×28",
    summary="the five rules of DCGAN: all convolutional, BatchNorm in both players",
    generator=radford_generator,
    discriminator=radford_discriminator,
    optimiser=adam_half,
    lr=2e-4,
    batch_size=128,
    order="paper",
    epochs=25,
    sample_every=200,
    checkpoint_every_epochs=1,
)

DCGAN_RADFORD_32 = replace(
    DCGAN_RADFORD,
    name="dcgan-radford-32",
    source="Radford et al. 2015, at 32×32",
    summary="the same from 4×4 on by doubling alone; images padded to 32×32",
    generator=radford_32_generator,
    discriminator=radford_32_discriminator,
    image_size=32,
)


# ---- dcgan-pool --------------------------------------------------------------------------------


def pool_generator(pixel_means: Any, labels: Labels) -> Sequential:
    return Sequential(
        *labels.layers(),
        Dense(100 + labels.width, 7 * 7 * 256),
        ReLU(),
        keras_norm(7 * 7 * 256),
        Reshape(7, 7, 256),
        ConvTranspose2D(256, 128, 5, stride=2),  # 14×14×128
        keras_norm(128),
        ConvTranspose2D(128, 1, 5, stride=2),  # 28×28×1
        Tanh(),
    )


def pool_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        *labels.layers(),
        Conv2D(packing + labels.width, 16, 5, stride=2),  # 14×14×16
        LeakyReLU(0.3),
        MaxPool2D(2),  # 7×7×16
        Conv2D(16, 32, 5, stride=2),  # 4×4×32
        LeakyReLU(0.3),
        MaxPool2D(2),  # 2×2×32
        Flatten(),
        Dense(2 * 2 * 32, 1),
    )


DCGAN_POOL = Preset(
    name="dcgan-pool",
    source="TensorFlow subclassing tutorial, its three mistakes mended",
    summary="D with max pooling; one combined batch, flipped and noisy labels",
    generator=pool_generator,
    discriminator=pool_discriminator,
    optimiser=keras_adam,
    lr=2e-4,
    batch_size=256,
    order="paper",
    combined=True,
    flipped=True,
    label_noise=0.05,
    epochs=100,
    grid=(4, 4),
    sample_every_epochs=5,
    checkpoint_every_epochs=5,
    log_every=100,
)
