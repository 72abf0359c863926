"""The Parzen window against a naive loop, closed forms, its symmetries and its anchor on MNIST."""

from __future__ import annotations

import math
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan.errors import DataError, OptionError, ShapeError
from tinygan.metrics import SIGMAS, choose_sigma, parzen, parzen_log_likelihood

RNG = np.random.default_rng(20140610)
SAMPLES, POINTS = RNG.random((40, 7)), RNG.random((23, 7))


def naive(samples, points, sigma):
    """The formula as printed, one Gaussian at a time; good while nothing underflows."""
    result = []
    for x in points:
        density = 0.0
        for s in samples:
            norm = (2.0 * math.pi * sigma**2) ** (-len(x) / 2)
            density += norm * math.exp(
                -sum((a - b) ** 2 for a, b in zip(x, s, strict=True)) / (2 * sigma**2)
            )
        result.append(math.log(density / len(samples)))
    return np.array(result)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0, 10.0])
def test_equals_the_naive_loop(sigma):
    ours = parzen_log_likelihood(SAMPLES, POINTS, sigma)
    np.testing.assert_allclose(ours, naive(SAMPLES, POINTS, sigma), rtol=1e-11, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 12))
def test_any_shape_and_batch(n, points, dimensions, batch):
    rng = np.random.default_rng(n + 10 * points + 100 * dimensions)
    s, x = rng.normal(size=(n, dimensions)), rng.normal(size=(points, dimensions))
    ours = parzen_log_likelihood(s, x, 0.7, batch=batch)
    assert ours.shape == (points,)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, naive(s, x, 0.7), rtol=1e-11, atol=1e-11)


def test_one_sample_is_the_gaussian_density():
    x = np.array([[-1.0], [0.0], [3.0]])
    expected = -0.5 * ((x[:, 0] - 0.5) / 2.0) ** 2 - math.log(2.0 * math.sqrt(2.0 * math.pi))
    np.testing.assert_allclose(parzen_log_likelihood([[0.5]], x, 2.0), expected, rtol=1e-14)


def test_density_integrates_to_one():
    grid = np.linspace(-8.0, 9.0, 20_001)
    density = np.exp(parzen_log_likelihood([[-1.0], [0.2], [2.0]], grid[:, None], 0.6))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-12)


def test_mean_tends_to_the_convolved_entropy():
    """Samples and points from N(0, 1): the mixture is nearly N(0, 1 + sigma²)."""
    s, x = RNG.normal(size=(4_000, 1)), RNG.normal(size=(4_000, 1))
    variance = 1.0 + 0.3**2
    expected = -0.5 * math.log(2.0 * math.pi * variance) - 0.5 / variance
    assert parzen_log_likelihood(s, x, 0.3).mean() == pytest.approx(expected, abs=0.05)


def test_far_points_do_not_underflow():
    """exp(-|x - s|²/2σ²) is 0 in float64 here; the log-likelihood is not -inf."""
    far = parzen_log_likelihood(np.zeros((3, 784)), np.ones((1, 784)), 0.1)
    expected = -784 / (2 * 0.01) - 392 * math.log(2 * math.pi * 0.01)
    np.testing.assert_allclose(far, expected, rtol=1e-13)


def test_invariances():
    base = parzen_log_likelihood(SAMPLES, POINTS, 0.2)
    rotation = np.linalg.qr(RNG.normal(size=(7, 7)))[0]
    same = [
        parzen_log_likelihood(SAMPLES + 5.0, POINTS + 5.0, 0.2),
        parzen_log_likelihood(SAMPLES @ rotation, POINTS @ rotation, 0.2),
        parzen_log_likelihood(SAMPLES[::-1], POINTS, 0.2),
        parzen_log_likelihood(SAMPLES[:, ::-1], POINTS[:, ::-1], 0.2),
        parzen_log_likelihood(np.repeat(SAMPLES, 3, axis=0), POINTS, 0.2),
        # a change of units moves log p by the log of the volume
        parzen_log_likelihood(3.0 * SAMPLES, 3.0 * POINTS, 0.6) + 7 * math.log(3.0),
    ]
    for other in same:
        np.testing.assert_allclose(other, base, rtol=1e-10, atol=1e-10)


def test_centring_keeps_digits_far_from_the_origin():
    """Without it |x|² - 2 x·s + |s|² would keep no digit of a distance of 1 at 1e8."""
    near = parzen_log_likelihood([[1e8], [1e8 + 1.0]], [[1e8 + 2.0]], 1.0)
    np.testing.assert_allclose(near, parzen_log_likelihood([[0.0], [1.0]], [[2.0]], 1.0), rtol=1e-7)


def test_a_point_on_a_sample_at_a_small_width():
    score = parzen_log_likelihood(SAMPLES, SAMPLES[:5], 1e-3)
    expected = -math.log(len(SAMPLES)) - 3.5 * math.log(2.0 * math.pi * 1e-6)
    np.testing.assert_allclose(score, expected, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7, 22, 23, 1000, np.int64(5)])
def test_batch_changes_nothing(batch):
    whole = parzen_log_likelihood(SAMPLES, POINTS, 0.2, batch=23)
    np.testing.assert_allclose(
        parzen_log_likelihood(SAMPLES, POINTS, 0.2, batch=batch), whole, rtol=1e-13, atol=1e-12
    )
    assert choose_sigma(SAMPLES, POINTS, batch=batch) == choose_sigma(SAMPLES, POINTS)


def test_float32_input_is_computed_in_float64():
    s, x = SAMPLES.astype(np.float32), POINTS.astype(np.float32)
    exact = parzen_log_likelihood(s.astype(np.float64), x.astype(np.float64), 0.2)
    assert np.array_equal(parzen_log_likelihood(s, x, 0.2), exact)


def test_inputs_are_not_written_to():
    s, x = SAMPLES.copy(), POINTS.copy()
    s.setflags(write=False)
    x.setflags(write=False)
    parzen(s, x, x)
    assert np.array_equal(s, SAMPLES)
    assert np.array_equal(x, POINTS)


def test_memory_is_bounded_by_the_batch():
    s, x = RNG.random((2_000, 10)), RNG.random((3_000, 10))
    tracemalloc.start()
    parzen_log_likelihood(s, x, 0.2, batch=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * 50 * 2_000 + 4 * s.nbytes  # all distances at once would be 48 MB


def test_choose_sigma_takes_the_likeliest():
    means = [parzen_log_likelihood(SAMPLES, POINTS, sigma).mean() for sigma in SIGMAS]
    assert choose_sigma(SAMPLES, POINTS) == SIGMAS[int(np.argmax(means))]
    assert choose_sigma(SAMPLES, POINTS, [0.5]) == 0.5
    np.testing.assert_allclose(SIGMAS, 10.0 ** (np.arange(10) / 9 - 1))


def test_protocol_uses_validation_for_sigma_and_test_for_the_score():
    validation, test = RNG.random((11, 7)), RNG.random((13, 7))
    score = parzen(SAMPLES, validation, test, sigmas=(0.05, 0.2, 0.8))
    assert score.sigma == choose_sigma(SAMPLES, validation, (0.05, 0.2, 0.8))
    each = naive(SAMPLES, test, score.sigma)
    assert score.mean == pytest.approx(each.mean(), rel=1e-11)
    assert score.standard_error == pytest.approx(each.std() / math.sqrt(13), rel=1e-9)
    assert str(score).startswith(f"{score.mean:.1f} ± ")
    # sigma is a property of the validation points: samples as validation choose the narrowest
    assert parzen(SAMPLES, SAMPLES, test, sigmas=(0.05, 0.2, 0.8)).sigma == 0.05


@pytest.mark.parametrize(
    ("samples", "points", "words"),
    [
        (np.zeros((0, 3)), np.zeros((2, 3)), r"samples must be \(N, D\).*\(0, 3\)"),
        (np.zeros((2, 3)), np.zeros((0, 3)), r"points must be \(N, D\).*\(0, 3\)"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "at least 1"),
        (np.zeros((2, 3)), np.zeros((2, 4)), r"points must be \(N, 3\).*\(2, 4\)"),
        (np.zeros(3), np.zeros((2, 3)), r"\(3,\)"),
        (np.zeros((2, 28, 28, 1)), np.zeros((2, 784)), "flatten"),
    ],
)
def test_bad_shapes(samples, points, words):
    with pytest.raises(ShapeError, match=words):
        parzen_log_likelihood(samples, points, 0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(bad):
    broken = POINTS.copy()
    broken[3, 2] = bad
    with pytest.raises(DataError, match="points have 1 values"):
        parzen_log_likelihood(SAMPLES, broken, 0.2)
    with pytest.raises(DataError, match="samples have 1 values"):
        choose_sigma(broken, SAMPLES)


def test_values_that_are_no_numbers():
    with pytest.raises(DataError, match="samples must be an array of real numbers"):
        parzen_log_likelihood([["a"]], [[0.0]], 0.2)
    with pytest.raises(DataError, match="points must be an array of real numbers"):
        parzen_log_likelihood([[0.0]], [[0.0], [1.0, 2.0]], 0.2)


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf])
def test_bad_sigma(sigma):
    with pytest.raises(OptionError, match="sigma must be positive and finite, got"):
        parzen_log_likelihood(SAMPLES, POINTS, sigma)
    with pytest.raises(OptionError, match="sigma must be positive"):
        choose_sigma(SAMPLES, POINTS, [0.1, sigma])


def test_no_sigmas():
    with pytest.raises(OptionError, match="got none"):
        choose_sigma(SAMPLES, POINTS, [])


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_bad_batch(batch):
    with pytest.raises(OptionError, match="batch must be a positive whole number"):
        parzen_log_likelihood(SAMPLES, POINTS, 0.2, batch=batch)


def test_images_in_another_range_are_refused():
    with pytest.raises(DataError, match=r"samples reach from -1 .*\[0, 1\].*\(x \+ 1\) / 2"):
        parzen(np.where(SAMPLES < 0.5, -1.0, 1.0), POINTS, POINTS)
    with pytest.raises(DataError, match="test reach from 0 to 255"):
        parzen(SAMPLES, POINTS, np.array([[0.0, 255.0, 1, 1, 1, 1, 1]]))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYGAN_DATA"), reason="TINYGAN_DATA names no folder")
def test_anchor_on_mnist():
    """The first 10 000 training images as samples: 241.2 ± 2.1 nats on the whole test set."""
    from tinygan.data import load_mnist

    train = load_mnist("train").images.reshape(60_000, 784)
    test = load_mnist("test").images.reshape(10_000, 784)
    score = parzen(train[:10_000] / 255.0, train[50_000:51_000] / 255.0, test / 255.0)
    assert score.mean == pytest.approx(241.2, abs=0.06)
    assert score.standard_error == pytest.approx(2.1, abs=0.06)
    assert score.sigma == SIGMAS[2]
