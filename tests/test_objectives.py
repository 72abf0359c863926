"""Minimax and non-saturating, kept apart and named so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinygan import get_backend, make_objective
from tinygan.errors import OptionError
from tinygan.gradcheck import check_gradient
from tinygan.nn import Cache

rng = np.random.default_rng(0)
REAL, FAKE = rng.standard_normal((5, 1)) + 1, rng.standard_normal((5, 1)) - 1
BOTH = [
    (name, loss) for name in ("minimax", "non-saturating") for loss in ("logits", "probabilities")
]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cache():
    return Cache(get_backend("numpy", "float64"))


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_the_discriminators_loss_is_minus_v_or_half_of_it(name, loss):
    v = np.log(sigmoid(REAL)).mean() + np.log(1 - sigmoid(FAKE)).mean()  # equation 1
    whole, *_ = make_objective(name, loss, halved=False).discriminator(REAL, FAKE, cache())
    half, *_ = make_objective(name, loss, halved=True).discriminator(REAL, FAKE, cache())
    np.testing.assert_allclose([whole, half], [-v, -v / 2], rtol=1e-9)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_the_generators_two_losses(loss):
    minimax, _ = make_objective("minimax", loss).generator(FAKE, cache())
    other, _ = make_objective("non-saturating", loss).generator(FAKE, cache())
    np.testing.assert_allclose(minimax, np.log(1 - sigmoid(FAKE)).mean(), rtol=1e-9)
    np.testing.assert_allclose(other, -np.log(sigmoid(FAKE)).mean(), rtol=1e-9)


@pytest.mark.parametrize(("name", "loss"), BOTH)
@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("real_target", [1.0, 0.9])
def test_gradients_agree_with_differences(name, loss, halved, real_target):
    objective = make_objective(name, loss, halved, real_target)
    _, d_real, d_fake = objective.discriminator(REAL, FAKE, cache())
    check_gradient(lambda x: float(objective.discriminator(x, FAKE, cache())[0]), REAL, d_real)
    check_gradient(lambda x: float(objective.discriminator(REAL, x, cache())[0]), FAKE, d_fake)
    _, d = objective.generator(FAKE, cache())
    check_gradient(lambda x: float(objective.generator(x, cache())[0]), FAKE, d)


def test_real_and_fake_batches_may_differ_in_size():
    objective = make_objective("minimax", halved=False)
    _, d_real, d_fake = objective.discriminator(REAL[:2], FAKE, cache())
    check_gradient(lambda x: float(objective.discriminator(REAL[:2], x, cache())[0]), FAKE, d_fake)
    assert d_real.shape == (2, 1)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_minimax_is_the_zero_sum_game(loss):
    """What G descends is, as far as G can change it, exactly what D ascends."""
    objective = make_objective("minimax", loss, halved=False)
    _, _, d_fake = objective.discriminator(REAL, FAKE, cache())
    _, g_fake = objective.generator(FAKE, cache())
    np.testing.assert_array_equal(g_fake, -d_fake)


def test_minimax_saturates_where_d_is_sure_and_the_other_does_not():
    sure = np.full((1, 1), -12.0)
    _, weak = make_objective("minimax").generator(sure, cache())
    _, strong = make_objective("non-saturating").generator(sure, cache())
    assert -1e-5 < weak[0, 0] < 0  # both push the logit up
    assert -1.0 < strong[0, 0] < -0.99


@pytest.mark.parametrize(("name", "loss"), BOTH)
def test_equilibrium_values(name, loss):
    zero = np.zeros((4, 1))
    total, *_ = make_objective(name, loss, halved=False).discriminator(zero, zero, cache())
    half, *_ = make_objective(name, loss).discriminator(zero, zero, cache())
    g, _ = make_objective(name, loss).generator(zero, cache())
    np.testing.assert_allclose([total, half], [math.log(4), math.log(2)], rtol=1e-12)
    np.testing.assert_allclose(g, math.log(2) * (-1 if name == "minimax" else 1), rtol=1e-12)


@pytest.mark.parametrize(("name", "loss"), BOTH)
def test_losses_stay_on_the_device(name, loss):
    """0-d arrays: a Python number would have to wait for a GPU."""
    objective = make_objective(name, loss)
    for value in (
        objective.discriminator(REAL, FAKE, cache())[0],
        objective.generator(FAKE, cache())[0],
    ):
        assert not isinstance(value, float) or isinstance(value, np.floating)
        assert value.shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "wasserstein"},
            "unknown objective 'wasserstein': choose minimax or non-saturating",
        ),
        ({"loss": "logit"}, "unknown loss 'logit': choose logits or probabilities"),
        ({"real_target": 1.1}, r"a label lies in \[0, 1\], got 1.1"),
        ({"real_target": float("nan")}, r"a label lies in \[0, 1\], got nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make_objective(**options)
