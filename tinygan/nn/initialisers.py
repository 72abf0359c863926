"""Where parameters start: functions (noise, purpose, shape) -> array.

Derivation: docs/initialisation.md.

Weights have the shape (..., n_in, n_out); dimensions before those two are a kernel's.
"""

from __future__ import annotations

import math
from typing import Any

from tinygan.backend import Array
from tinygan.errors import OptionError, ShapeError
from tinygan.nn.layer import Initialiser, Shape
from tinygan.noise import Noise


def fans(shape: Shape) -> tuple[int, int]:
    """(inputs that one output sums over, outputs that one input reaches), at stride 1.

    Of the kernel of a transposed convolution they are those of its adjoint: exchanged.
    """
    kernel = math.prod(shape[:-2])
    return kernel * shape[-2], kernel * shape[-1]


def zeros(noise: Noise, purpose: str, shape: Shape) -> Array:
    """All zero: the usual bias."""
    return noise.backend.zeros(shape)


def ones(noise: Noise, purpose: str, shape: Shape) -> Array:
    """All one: BatchNorm's scale."""
    return noise.backend.zeros(shape) + 1


def uniform(r: float) -> Initialiser:
    """Uniform in [-r, r]."""
    return lambda noise, purpose, shape: noise.uniform(purpose, shape, -r, r)  # [init.1]


def normal(std: float) -> Initialiser:
    """N(0, std²)."""
    return lambda noise, purpose, shape: noise.normal(purpose, shape, std)


def glorot_uniform(noise: Noise, purpose: str, shape: Shape) -> Array:
    """Variance 2 / (n_in + n_out): Glorot & Bengio 2010, eq. 16."""
    r = math.sqrt(6.0 / sum(fans(shape)))  # [init.2]
    return noise.uniform(purpose, shape, -r, r)


def glorot_normal(noise: Noise, purpose: str, shape: Shape) -> Array:
    """Variance 2 / (n_in + n_out), normal."""
    return noise.normal(purpose, shape, math.sqrt(2.0 / sum(fans(shape))))


def he_normal(slope: float = 0.0) -> Initialiser:
    """Variance 2 / ((1 + slope²) n_in), for (leaky) ReLU: He et al. 2015, eq. 10 and 15."""

    def draw(noise: Noise, purpose: str, shape: Shape) -> Array:
        std = math.sqrt(2.0 / ((1.0 + slope * slope) * fans(shape)[0]))  # [init.3]
        return noise.normal(purpose, shape, std)

    return draw


def he_uniform(slope: float = 0.0) -> Initialiser:
    """The same variance, uniform: r = sqrt(6 / ((1 + slope²) n_in))."""

    def draw(noise: Noise, purpose: str, shape: Shape) -> Array:
        r = math.sqrt(6.0 / ((1.0 + slope * slope) * fans(shape)[0]))
        return noise.uniform(purpose, shape, -r, r)

    return draw


def output_bias(pixel_means: Any, activation: str = "sigmoid") -> Initialiser:
    """G's output bias for which a G of zero weights shows the mean image of the data.

    `pixel_means` is a NumPy array of means in [0, 1], one for each output, 0 and 1 being the
    ends of the activation's range. They are clipped to [1e-7, 1 - 1e-7], as in the code of
    Goodfellow et al. 2014. sigmoid: logit(m); tanh: artanh(2 m - 1) = logit(m) / 2.
    """
    halves = {"sigmoid": 1.0, "tanh": 0.5}
    if activation not in halves:
        raise OptionError(f"output_bias: activation {activation!r} is not sigmoid or tanh")

    def bias(noise: Noise, purpose: str, shape: Shape) -> Array:
        count = math.prod(shape)
        if pixel_means.size != count:
            raise ShapeError(
                f"{purpose} expects the means of {count} pixels, got {pixel_means.size}: "
                "the data's images are not of the size that G makes"
            )
        m = noise.backend.from_host(pixel_means, dtype="float64").reshape(shape)
        m = m.clip(1e-7, 1.0 - 1e-7)
        return halves[activation] * noise.backend.xp.log(m / (1.0 - m))  # [init.4]

    return bias
