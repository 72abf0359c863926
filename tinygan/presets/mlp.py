"""The MLP GANs. Each deviation from its source is named on the preset's line in docs/presets.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinygan.nn import (
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    Maxout,
    Network,
    ReLU,
    Reshape,
    Sequential,
    Sigmoid,
    Tanh,
)
from tinygan.nn.initialisers import he_uniform, output_bias, uniform
from tinygan.optim import SGD, Adam, Optimiser, decay, ramp
from tinygan.presets.preset import Labels, Preset, packed


def adam_half(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """Adam with beta1 = 0.5, as Radford et al. 2015 found it for GANs."""
    return Adam(network, lr, beta1=0.5, beta2=0.999)


def torch_dense(n_in: int, n_out: int) -> Dense:
    """A dense layer that starts as PyTorch starts it: all uniform(±1/sqrt(n_in))."""
    return Dense(n_in, n_out, W=he_uniform(slope=5**0.5), b=uniform(n_in**-0.5))


# ---- mlp-leaky ---------------------------------------------------------------------------------


def leaky_generator(pixel_means: Any, labels: Labels) -> Sequential:
    return Sequential(
        *labels.layers(),
        torch_dense(100 + labels.width, 128),
        LeakyReLU(0.2),
        torch_dense(128, 256),
        LeakyReLU(0.2),
        torch_dense(256, 512),
        LeakyReLU(0.2),
        torch_dense(512, 784),
        Tanh(),
        Reshape(28, 28, 1),
    )


def leaky_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        Flatten(),
        *labels.layers(),
        torch_dense(784 * packing + labels.width, 512),
        LeakyReLU(0.2),
        torch_dense(512, 256),
        LeakyReLU(0.2),
        torch_dense(256, 1),
    )


def leaky_bn_generator(pixel_means: Any, labels: Labels) -> Sequential:
    layers = [*labels.layers(), torch_dense(100 + labels.width, 128), LeakyReLU(0.2)]
    for n_in, n_out in [(128, 256), (256, 512), (512, 1024)]:
        layers += [torch_dense(n_in, n_out), BatchNorm(n_out, momentum=0.9), LeakyReLU(0.2)]
    return Sequential(*layers, torch_dense(1024, 784), Tanh(), Reshape(28, 28, 1))


MLP_LEAKY = Preset(
    name="mlp-leaky",
    source="four-layer MLP GAN of a PyTorch tutorial",
    summary="dense and leaky ReLU alone; both gradients from the same fakes",
    generator=leaky_generator,
    discriminator=leaky_discriminator,
    optimiser=adam_half,
    lr=2e-4,
    batch_size=128,
    order="simultaneous",
    loss="probabilities",
    epochs=300,
    sample_every=400,
    checkpoint_every=4680,
)

MLP_LEAKY_BN = replace(
    MLP_LEAKY,
    name="mlp-leaky-bn",
    source="PyTorch-GAN gan.py, its BatchNorm's epsilon mended",
    summary="the same with the wider, batch-normalised G of the tutorial's code",
    generator=leaky_bn_generator,
)


# ---- mlp-batchnorm -----------------------------------------------------------------------------


def batchnorm_generator(pixel_means: Any, labels: Labels) -> Sequential:
    layers = labels.layers()
    for n_in, n_out in [(100 + labels.width, 256), (256, 512), (512, 1024)]:
        layers += [
            Dense(n_in, n_out),
            LeakyReLU(0.2),
            BatchNorm(n_out, momentum=0.8, eps=1e-3),
        ]
    return Sequential(*layers, Dense(1024, 784), Tanh(), Reshape(28, 28, 1))


def batchnorm_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        Flatten(),
        *labels.layers(),
        Dense(784 * packing + labels.width, 512),
        LeakyReLU(0.2),
        Dense(512, 256),
        LeakyReLU(0.2),
        Dense(256, 1),
    )


MLP_BATCHNORM = Preset(
    name="mlp-batchnorm",
    source="Keras MLP GAN",
    summary="batch normalisation after each leaky ReLU of G; clean digits within minutes",
    generator=batchnorm_generator,
    discriminator=batchnorm_discriminator,
    optimiser=adam_half,
    lr=2e-4,
    batch_size=256,
    order="paper",
    replacement=True,
    steps=30_000,
    grid=(5, 5),
    sample_every=200,
    checkpoint_every=1000,
)


# ---- goodfellow2014 ----------------------------------------------------------------------------


def goodfellow_generator(pixel_means: Any, labels: Labels) -> Sequential:
    start = {} if pixel_means is None else {"b": output_bias(pixel_means, "sigmoid")}
    return Sequential(
        *labels.layers(),
        Dense(100 + labels.width, 1200, W=uniform(0.05)),
        ReLU(),
        Dense(1200, 1200, W=uniform(0.05)),
        ReLU(),
        Dense(1200, 784, W=uniform(0.05), **start),
        Sigmoid(),
        Reshape(28, 28, 1),
    )


def goodfellow_discriminator(labels: Labels, packing: int = 1) -> Sequential:
    return Sequential(
        *packed(packing),
        Flatten(),
        Dropout(keep=0.8),
        *labels.layers(),
        Maxout(784 * packing + labels.width, units=240, pieces=5, W=uniform(0.005)),
        Dropout(keep=0.5),
        Maxout(240, units=240, pieces=5, W=uniform(0.005)),
        Dropout(keep=0.5),
        Dense(240, 1, W=uniform(0.005)),
    )


def goodfellow_sgd(network: Network, lr: float, steps_per_epoch: int) -> Optimiser:
    """lr / 1.000004^t with floor 1e-6; momentum from 0.5 to 0.7 over 250 epochs, epoch by epoch."""
    momentum = ramp(0.5, 0.7, steps=250 * steps_per_epoch, every=steps_per_epoch)
    return SGD(network, decay(lr, 1.000004, floor=1e-6), momentum)


GOODFELLOW2014 = Preset(
    name="goodfellow2014",
    source="Goodfellow et al. 2014, hyper-parameter file of the MNIST model",
    summary="the paper's own model: ReLU G, maxout D with dropout, SGD with momentum",
    generator=goodfellow_generator,
    discriminator=goodfellow_discriminator,
    optimiser=goodfellow_sgd,
    lr=0.1,
    batch_size=100,
    order="simultaneous",
    value_range=(0.0, 1.0),
    epochs=1000,
    train_images=50_000,
    sample_every=2500,
    checkpoint_every=500,
    keep_every=10_000,
)
