"""Binary cross entropy on logits and on probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan import get_backend
from tinygan.gan.objectives import PROBABILITY_CLIP, bce_with_logits, bce_with_probabilities
from tinygan.gradcheck import check_gradient
from tinygan.nn import Cache

LOSSES = [bce_with_logits, bce_with_probabilities]


def evaluate(bce, logits, target, dtype="float64"):
    cache = Cache(get_backend("numpy", dtype))
    return bce(np.asarray(logits, dtype), target, cache)


@pytest.mark.parametrize("bce", LOSSES)
@pytest.mark.parametrize("target", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 5])
def test_gradients_agree_with_differences(bce, target, n):
    logits = np.random.default_rng(0).standard_normal((n, 1)) * 3
    _, d = evaluate(bce, logits, target)
    check_gradient(lambda x: float(evaluate(bce, x, target)[0]), logits, d)


@pytest.mark.parametrize("bce", LOSSES)
def test_soft_labels_one_for_each_sample(bce):
    rng = np.random.default_rng(1)
    logits, target = rng.standard_normal((6, 1)), rng.uniform(0, 1, (6, 1))
    loss, d = evaluate(bce, logits, target)
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(d, (p - target) / 6, rtol=1e-9)
    check_gradient(lambda x: float(evaluate(bce, x, target)[0]), logits, d)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_logits_are_stable_at_ten_thousand(dtype, target):
    x = np.array([[1e4], [-1e4]])
    for i, logit in enumerate((1e4, -1e4)):
        loss, d = evaluate(bce_with_logits, x[i : i + 1], target, dtype)
        expected = max(logit, 0.0) - logit * target
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        np.testing.assert_allclose(d, [[float(logit > 0) - target]], atol=1e-30)
        assert loss.dtype == d.dtype == dtype


def test_small_losses_keep_their_digits():
    """log1p: -log D at a logit of 40 is 4e-18, not 0."""
    loss, _ = evaluate(bce_with_logits, [[40.0]], 1.0)
    np.testing.assert_allclose(loss, math.exp(-40), rtol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.floats(-15, 15), st.floats(0, 1))
def test_probabilities_equal_logits_inside_the_clip(logit, target):
    loss_l, d_l = evaluate(bce_with_logits, [[logit]], target)
    loss_p, d_p = evaluate(bce_with_probabilities, [[logit]], target)
    np.testing.assert_allclose(loss_p, loss_l, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(d_p, d_l, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", [-1e4, -20.0, 20.0, 1e4])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_probabilities_are_finite_and_flat_beyond_the_clip(dtype, logit, target):
    loss, d = evaluate(bce_with_probabilities, [[logit]], target, dtype)
    wrong = (logit > 0) != (target > 0.5)
    expected = -math.log(PROBABILITY_CLIP) if wrong else PROBABILITY_CLIP
    np.testing.assert_allclose(loss, expected, rtol=0.2)
    assert d == 0.0


def test_the_clip_does_something_in_float32():
    assert np.float32(1.0 - PROBABILITY_CLIP) < np.float32(1.0)


@pytest.mark.parametrize("bce", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_arguments_are_kept(bce, dtype):
    logits = np.linspace(-3, 3, 5).astype(dtype)[:, None]
    before = logits.copy()
    loss, d = evaluate(bce, logits, 1.0, dtype)
    assert d.dtype == dtype
    assert (loss.shape, loss.dtype) == ((), dtype)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("target", [0.0, 0.9, 1.0])
def test_losses_equal_pytorch(target):
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(2).standard_normal((7, 1)) * 4
    for bce, theirs in [
        (bce_with_logits, torch.nn.functional.binary_cross_entropy_with_logits),
        (
            bce_with_probabilities,
            lambda x, t: torch.nn.functional.binary_cross_entropy(torch.sigmoid(x), t),
        ),
    ]:
        x = torch.tensor(logits, requires_grad=True)
        expected = theirs(x, torch.full_like(x, target))
        expected.backward()
        loss, d = evaluate(bce, logits, target)
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-10)
        np.testing.assert_allclose(d, x.grad.numpy(), rtol=1e-8, atol=1e-12)
