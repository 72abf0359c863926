"""Where parameters start."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinygan import Network, Noise, Sequential, get_backend
from tinygan.errors import OptionError, ShapeError
from tinygan.nn import Dense, Sigmoid, Tanh
from tinygan.nn.initialisers import (
    fans,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    normal,
    ones,
    output_bias,
    uniform,
    zeros,
)

SHAPE = (300, 200)
UNIFORM = [
    (uniform(0.05), 0.05),
    (glorot_uniform, math.sqrt(6 / 500)),
    (he_uniform(), math.sqrt(6 / 300)),
]
NORMAL = [
    (normal(0.02), 0.02),
    (glorot_normal, math.sqrt(2 / 500)),
    (he_normal(), math.sqrt(2 / 300)),
    (he_normal(slope=0.2), math.sqrt(2 / (1.04 * 300))),
]


@pytest.fixture(params=["float32", "float64"])
def noise(request):
    return Noise(0, get_backend("numpy", request.param))


@pytest.mark.parametrize(("draw", "r"), UNIFORM)
def test_uniform_ones(draw, r, noise):
    W = draw(noise, "W", SHAPE)
    assert W.dtype == noise.backend.dtype
    assert 0.999 * r < np.abs(W).max() <= r * (1 + 1e-6)
    assert abs(W.mean()) < 4 * r / math.sqrt(3 * W.size)
    assert W.var() == pytest.approx(r * r / 3, rel=0.02)


@pytest.mark.parametrize(("draw", "std"), NORMAL)
def test_normal_ones(draw, std, noise):
    W = draw(noise, "W", SHAPE)
    assert W.dtype == noise.backend.dtype
    assert abs(W.mean()) < 4 * std / math.sqrt(W.size)
    assert W.std() == pytest.approx(std, rel=0.02)
    assert np.mean(np.abs(W) > 2 * std) == pytest.approx(0.0455, abs=0.005)


def test_zeros_and_ones(noise):
    for draw, value in [(zeros, 0.0), (ones, 1.0)]:
        a = draw(noise, "b", (3,))
        assert a.dtype == noise.backend.dtype
        np.testing.assert_array_equal(a, np.full(3, value))


def test_he_with_slope_root_five_is_pytorchs_default():
    r = 1 / math.sqrt(300)
    W = he_uniform(slope=5**0.5)(Noise(0, get_backend("numpy")), "W", SHAPE)
    assert 0.999 * r < np.abs(W).max() <= r * (1 + 1e-6)


def test_fans_count_a_kernels_places():
    assert fans((30, 20)) == (30, 20)
    assert fans((5, 5, 3, 8)) == (75, 200)


def test_a_draw_depends_on_seed_and_name_alone():
    backend = get_backend("numpy", "float64")
    first = Network(Sequential(Dense(3, 4), Dense(4, 4)), (3,), backend, "G", Noise(1, backend))
    again = Network(Sequential(Dense(3, 4), Dense(4, 4)), (3,), backend, "G", Noise(1, backend))
    other = Network(Sequential(Dense(3, 4), Dense(4, 4)), (3,), backend, "G", Noise(2, backend))
    D = Network(Sequential(Dense(3, 4), Dense(4, 4)), (3,), backend, "D", Noise(1, backend))
    longer = Network(
        Sequential(Dense(3, 4), Dense(4, 4), Dense(4, 1)), (3,), backend, "G", Noise(1, backend)
    )
    np.testing.assert_array_equal(first.parameters, again.parameters)
    assert not np.isclose(first.body.layers[0].W, other.body.layers[0].W).any()
    assert not np.isclose(first.body.layers[0].W, D.body.layers[0].W).any()
    np.testing.assert_array_equal(longer.body.layers[1].W, first.body.layers[1].W)


@pytest.mark.parametrize(("activation", "layer"), [("sigmoid", Sigmoid()), ("tanh", Tanh())])
def test_output_bias_shows_the_mean_image(activation, layer):
    means = np.array([0.1, 0.5, 0.9, 0.3])
    backend = get_backend("numpy", "float64")
    G = Network(
        Sequential(Dense(2, 4, W=zeros, b=output_bias(means, activation)), layer), (2,), backend
    )
    y = G.forward(np.ones((1, 2)), G.cache("z"))[0]
    low, high = layer.reach
    np.testing.assert_allclose(y, low + (high - low) * means, rtol=1e-12)


def test_output_bias_is_finite_for_pixels_that_are_always_black_or_white(noise):
    bias = output_bias(np.array([[0.0, 1.0]]))(noise, "b", (2,))
    np.testing.assert_allclose(bias, [-16.118, 16.118], rtol=1e-4)


def test_output_bias_of_another_activation_or_size_is_refused():
    with pytest.raises(OptionError, match="activation 'relu' is not sigmoid or tanh"):
        output_bias(np.zeros(3), "relu")
    with pytest.raises(ShapeError, match=r"G/4\.b expects the means of 4 pixels, got 3"):
        output_bias(np.zeros(3))(Noise(0, get_backend("numpy")), "G/4.b", (4,))
