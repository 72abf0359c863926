"""The mistakes found in public from-scratch GANs: each test fails if its mistake is made here.

(Up-sampling is in test_pool.py, labels ignored by G in test_conditional_game.py, dead
download links are in test_data_mnist.py.)
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from narrow import game_of, narrow

from tinygan import Adam, Game, Network, Noise, get_backend, make_objective
from tinygan.data import Minibatches
from tinygan.errors import DataError, DoubleSigmoidWarning, RangeWarning, ShapeError
from tinygan.gan.objectives import bce_with_logits
from tinygan.gradcheck import check_layer, check_parameters
from tinygan.nn import (
    BatchNorm,
    Cache,
    Dense,
    LeakyReLU,
    Maxout,
    Reshape,
    Sequential,
    Sigmoid,
    Tanh,
)
from tinygan.presets import PRESETS, Labels, get_preset


@pytest.fixture
def backend():
    return get_backend("numpy", "float64")


# ---- Adam's bias correction with 1 - beta in place of 1 - beta^t ---------------------------------


def test_adams_bias_correction_uses_the_power_of_beta(backend):
    """Under a constant gradient every step has the length lr; the mistake's steps grow tenfold."""
    net = Network(Dense(2, 2), (2,), backend)
    adam = Adam(net, lr=0.01, beta1=0.9, eps=1e-12)
    g = np.array([1.0, -2.0, 0.5, 3.0, -0.1, 10.0])
    for _ in range(50):
        before = net.parameters.copy()
        net.gradients[...] = g
        adam.step()
        np.testing.assert_allclose(net.parameters - before, -0.01 * np.sign(g), rtol=1e-6)


# ---- one activation cache per layer --------------------------------------------------------------


def test_ds_gradient_on_real_does_not_use_its_activations_on_fakes(backend):
    game = game_of(get_preset("mlp-leaky"), backend)
    D, x, fakes = game.D, game.sample(), game.fakes(game.draw_noise())
    real, fake = D.cache("real"), D.cache("fake")
    dy = np.ones((len(x), 1))
    D.forward(x, real)
    D.backward(dy, real)
    alone = D.gradients.copy()
    D.gradients.fill(0)
    D.forward(x, real)
    D.forward(fakes, fake)  # between real's forward and its backward, as in every GAN's step
    D.backward(dy, real)
    np.testing.assert_array_equal(D.gradients, alone)


# ---- G's gradients silently zero -----------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_backprop_reaches_gs_first_layer(preset, backend):
    game = game_of(PRESETS[preset], backend)
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    game.generator_gradient(game.fakes(game.draw_noise()))
    first = next(layer for _, layer in game.G.layers() if "W" in layer.parameters)
    assert np.abs(first.dW).max() > 1e-6


# ---- one mixed gradient for G and D --------------------------------------------------------------


def test_gs_loss_leaves_nothing_in_ds_gradient(backend):
    game = game_of(get_preset("mlp-batchnorm"), backend)
    game.generator_gradient(game.fakes(game.draw_noise()))
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    clean = game.D.gradients.copy()
    game.generator_gradient(game.fakes(game.draw_noise()))
    np.testing.assert_array_equal(game.D.gradients, clean)
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    np.testing.assert_array_equal(game.D.gradients, clean)


# ---- frozen BatchNorm's backward ----------------------------------------------------------------


def test_frozen_batch_norm_goes_backward_through_constants(backend):
    check_layer(BatchNorm(4), (4,), train=(False,), passes=("backward", "jvp"))
    net = Network(BatchNorm(1, eps=0.0), (1,), backend)
    net.body.running_var, net.body.gamma = 4.0, 3.0
    site = net.cache("frozen", train=False)
    net.forward(np.array([[5.0], [7.0]]), site)
    np.testing.assert_array_equal(net.backward(np.ones((2, 1)), site), [[1.5], [1.5]])


# ---- a gradient penalty that is right for piecewise-linear critics only --------------------------


@pytest.mark.parametrize(
    "critic",
    [
        Sequential(Dense(3, 5), LeakyReLU(), Dense(5, 1)),
        Sequential(Dense(3, 4), Maxout(4, 4, 2), Dense(4, 1)),
        Sequential(Dense(3, 5), Tanh(), Dense(5, 1)),
        Sequential(Dense(3, 5), Tanh(), Dense(5, 4), Sigmoid(), Dense(4, 1)),
    ],
    ids=["leaky", "maxout", "tanh", "tanh-sigmoid"],
)
def test_a_gradient_penalty_is_right_for_smooth_critics_too(critic, backend):
    """The parameters' gradient of mean (|grad_x D(x)| - 1)², from one jvp and its reverse."""
    D = Network(critic, (3,), backend, "D")
    D.parameters += Noise(1, backend).normal("test", D.parameters.shape, std=0.3)
    x, one = np.random.default_rng(0).standard_normal((4, 3)), np.ones((4, 1))
    site = D.cache("penalty")

    def slopes():
        D.forward(x, site)
        g = D.backward(one, site, param_grads=False)
        return g, np.linalg.norm(g, axis=1, keepdims=True)

    g, norm = slopes()
    D.gradients.fill(0)
    D.jvp(2.0 * (norm - 1.0) / (len(x) * norm) * g, site)
    D.jvp_backward(None, one, site)
    check_parameters(lambda: float(((slopes()[1] - 1.0) ** 2).mean()), D, name="penalty")


# ---- log(sigmoid(x)) in two steps ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", [-90.0, -800.0])
def test_log_sigmoid_is_one_function(logit, dtype):
    cache = Cache(get_backend("numpy", dtype))
    loss, d = bce_with_logits(np.array([[logit]], dtype), 1.0, cache)
    np.testing.assert_allclose(loss, -logit, rtol=1e-6)
    np.testing.assert_allclose(d, -1.0, rtol=1e-6)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_both_objectives_are_finite_where_sigmoid_is_zero_or_one(name, loss):
    objective, cache = make_objective(name, loss), Cache(get_backend("numpy", "float32"))
    sure = np.array([[-90.0], [90.0], [-1e4], [1e4]], "float32")
    assert all(np.isfinite(a).all() for a in objective.discriminator(sure, -sure, cache))
    assert all(np.isfinite(a).all() for a in objective.generator(sure, cache))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_discriminator_ends_in_a_sigmoid(preset):
    """D gives logits: the losses apply the sigmoid, and would otherwise apply a second one."""
    body = PRESETS[preset].discriminator(Labels())
    assert body.reach is None
    size = PRESETS[preset].image_size or 28
    shape = {"images": (size, size, 1), "points": (2,), "curves": (15,)}[PRESETS[preset].kind]
    assert body.output_shape(shape) == (1,)


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
def test_a_second_sigmoid_is_warned_of(loss, backend):
    noise, objective = Noise(0, backend), make_objective("non-saturating", loss)
    G = Network(Sequential(Dense(2, 3), Tanh()), (2,), backend, "G", noise)
    D = Network(Sequential(Dense(3, 1), Sigmoid()), (3,), backend, "D", noise)
    with pytest.warns(DoubleSigmoidWarning, match=r"layer 1 Sigmoid.*between 0\.50 and 0\.73"):
        Game(G, D, objective, None, None, noise)
    D = Network(Sequential(Sequential(Dense(3, 1), Sigmoid()), Reshape(1)), (3,), backend, "D")
    with pytest.warns(DoubleSigmoidWarning, match=r"layer 0\.1 Sigmoid"):  # not the Reshape
        Game(G, D, objective, None, None, noise)
    D.body.layers[0].layers[1].reach, D.body.reach = None, (0.0, 1.0)  # known of the whole alone
    with pytest.warns(DoubleSigmoidWarning, match=r"layer 0 Sequential"):
        Game(G, D, objective, None, None, noise)


def test_players_that_do_not_fit_are_refused_before_the_first_step(backend):
    noise = Noise(0, backend)
    G = Network(Sequential(Dense(2, 4), Tanh()), (2,), backend, "G", noise)
    D = Network(Sequential(Dense(3, 1)), (3,), backend, "D", noise)
    with pytest.raises(ShapeError, match=r"G makes \(N, 4\) but D takes \(N, 3\)\. G's layers"):
        Game(G, D, make_objective(), None, None, noise)
    D = Network(Sequential(Dense(4, 5), LeakyReLU(), Dense(5, 2)), (4,), backend, "D", noise)
    with pytest.raises(ShapeError, match=r"D ends in \(N, 2\), not in one logit.*2 Dense\(5 -> 2"):
        Game(G, D, make_objective(), None, None, noise)


# ---- epochs and steps confused -------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
def test_an_epoch_is_one_pass_over_the_images(k, backend):
    n, m = 23, 5
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    noise = Noise(0, backend)
    sample = Minibatches(images, m, noise, (0.0, 255.0), k=k)
    assert sample.order.batches_per_epoch == 4  # the last, incomplete one is dropped
    seen = []
    for noise.step in range(1, 8 // k + 1):
        for noise.sub in range(1, k + 1):
            seen.append(np.rint(sample().reshape(-1)).astype(int))
    for epoch in (np.concatenate(seen[:4]), np.concatenate(seen[4:])):
        assert len(set(epoch.tolist())) == 20
    assert not np.array_equal(np.concatenate(seen[:4]), np.concatenate(seen[4:]))


def test_momentum_and_rate_of_goodfellow2014_count_what_they_say(backend):
    """The rate decays by the step, the momentum rises by the epoch."""
    preset = get_preset("goodfellow2014")
    net = Network(narrow(preset, preset.discriminator(Labels())), (4, 3, 1), backend, "D")
    sgd = preset.optimiser(net, preset.lr, 500)
    assert sgd.lr(500) == pytest.approx(0.1 / 1.000004**500)
    assert sgd.momentum(499) == 0.5
    assert sgd.momentum(125 * 500) == pytest.approx(0.6)
    assert sgd.momentum(250 * 500) == pytest.approx(0.7)


# ---- BatchNorm's two conventions of momentum -----------------------------------------------------


def test_momentum_is_what_is_kept():
    backend = get_backend("numpy", "float64")
    net = Network(BatchNorm(1, momentum=0.99), (1,), backend)
    site = net.cache("x")
    net.forward(np.array([[9.0], [11.0]]), site)
    net.update_statistics(site)
    np.testing.assert_allclose(net.body.running_mean, 0.1)  # the other convention gives 9.9


@pytest.mark.parametrize(
    ("preset", "momentum", "eps"),
    [
        ("mlp-batchnorm", 0.8, 1e-3),
        ("mlp-leaky-bn", 1 - 0.1, 1e-5),
        ("dcgan-tf", 0.99, 1e-3),
        ("dcgan-radford", 1 - 0.1, 1e-5),
        ("dcgan-pool", 0.99, 1e-3),
    ],
)
def test_presets_have_their_sources_momentum_in_our_convention(preset, momentum, eps):
    """Keras's decay as it is, PyTorch's 0.1 as 1 - 0.1; and no momentum in epsilon's place."""
    layers = PRESETS[preset].generator(None, Labels()).layers
    norms = [layer for layer in layers if isinstance(layer, BatchNorm)]
    assert norms
    assert {(norm.momentum, norm.eps) for norm in norms} == {(momentum, eps)}


# ---- data that G cannot reach --------------------------------------------------------------------


def test_pixels_outside_gs_range_are_refused(backend):
    images, noise = np.zeros((4, 1, 1, 1), np.uint8), Noise(0, backend)
    with pytest.raises(DataError, match=r"data in \[-1, 1\] lie outside \[0, 1\]"):
        Minibatches(images, 2, noise, (-1.0, 1.0), reach=Sigmoid.reach)


def test_pixels_that_fill_a_part_of_gs_range_are_warned_of(backend):
    images, noise = np.zeros((4, 1, 1, 1), np.uint8), Noise(0, backend)
    with pytest.warns(RangeWarning, match=r"data in \[0, 1\] fill only a part of \[-1, 1\]"):
        Minibatches(images, 2, noise, (0.0, 1.0), reach=Tanh.reach)
    Minibatches(images, 2, noise, (-0.9, 0.9), reach=Tanh.reach)  # a usual margin is no mistake
    Minibatches(images, 2, noise, (0.0, 1.0), reach=Sigmoid.reach)
    Minibatches(images, 2, noise, (0.0, 1.0))


@pytest.mark.parametrize("preset", [p for p in PRESETS if PRESETS[p].kind == "images"])
def test_presets_scale_pixels_to_what_their_g_can_make(preset):
    recipe = PRESETS[preset]
    assert recipe.generator(None, Labels()).reach == recipe.value_range


def test_saturated_g_is_no_silent_nan():
    """exp(-x) of a very negative pixel must not overflow: warnings are errors in these tests."""
    net = Network(Sigmoid(), (2,), get_backend("numpy", "float32"))
    y = net.forward(np.array([[-1e30, 1e30]], "float32"), net.cache("z"))
    assert y[0, 1] == 1.0
    assert 0.0 <= y[0, 0] < math.exp(-70)
