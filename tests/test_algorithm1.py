"""Algorithm 1 and its other orders of play: who moves when, on what, and who is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from narrow import game_of

from tinygan import SGD, Adam, alternating, get_backend, paper, simultaneous
from tinygan.errors import OptionError
from tinygan.gan import ORDERS
from tinygan.presets import PRESETS, get_preset


@pytest.fixture
def game(backend):
    return game_of(get_preset("mlp-batchnorm"), backend)


def spy(game):
    """The list into which every move of the game writes its name, and where the noise stood."""
    log = []

    def watched(name, function):
        def call(*args, **kwargs):
            log.append((name, game.noise.sub))
            return function(*args, **kwargs)

        return call

    names = ("draw_noise", "sample", "fakes", "discriminator_gradient", "generator_gradient")
    for name in names:
        setattr(game, name, watched(name, getattr(game, name)))
    return log, watched("ascend_D", lambda: None), watched("descend_G", lambda: None)


def d_update(sub):
    names = ("draw_noise", "sample", "fakes", "discriminator_gradient", "ascend_D")
    return [(name, sub) for name in names]


G_UPDATE = [(name, 0) for name in ("draw_noise", "fakes", "generator_gradient", "descend_G")]


@pytest.mark.parametrize("k", [1, 3])
def test_the_papers_order(game, k):
    log, ascend_D, descend_G = spy(game)
    paper(game, ascend_D, descend_G, k)
    assert log == [move for sub in range(1, k + 1) for move in d_update(sub)] + G_UPDATE


@pytest.mark.parametrize("k", [1, 3])
def test_alternating_order(game, k):
    log, ascend_D, descend_G = spy(game)
    alternating(game, ascend_D, descend_G, k)
    assert log == G_UPDATE + [move for sub in range(1, k + 1) for move in d_update(sub)]


def test_simultaneous_order(game):
    log, ascend_D, descend_G = spy(game)
    simultaneous(game, ascend_D, descend_G)
    names = [name for name, _ in log]
    assert names == [
        *("draw_noise", "sample", "fakes", "discriminator_gradient", "generator_gradient"),
        *("ascend_D", "descend_G"),
    ]
    with pytest.raises(OptionError, match="k is 1, not 2"):
        simultaneous(game, ascend_D, descend_G, k=2)


@pytest.mark.parametrize("order", ["paper", "alternating"])
def test_each_update_sees_fresh_noise(game, order):
    seen, draw = [], game.draw_noise
    game.draw_noise = lambda: seen.append(draw()) or seen[-1]
    for game.noise.step in (1, 2):
        ORDERS[order](game, lambda: None, lambda: None, 2)
    vectors = [tuple(map(float, z.reshape(-1))) for z in seen]
    assert len(vectors) == len(set(vectors)) == 6  # two for D and one for G in each step


@pytest.mark.parametrize("order", ORDERS)
def test_one_step_is_one_update_of_g(game, order):
    moves = []
    for game.noise.step in range(1, 4):
        ORDERS[order](game, lambda: moves.append("D"), lambda: moves.append("G"))
    assert moves.count("G") == moves.count("D") == 3


# ---- nobody touches the other player -----------------------------------------------------------


def copies(net):
    to_host = net.backend.to_host
    return [to_host(a) for a in (net.parameters, net.gradients, net.statistics)]


def same(net, before):
    return all(map(np.array_equal, copies(net), before))


@pytest.mark.parametrize("preset", PRESETS)
def test_gs_step_does_not_touch_d_nor_ds_step_g(preset, backend):
    game = game_of(PRESETS[preset], backend)
    G, D = game.G, game.D
    for net in (G, D):
        net.gradients.fill(3.0)  # would show if it were cleared or added to
    before = copies(D)
    game.generator_gradient(game.fakes(game.draw_noise()))
    Adam(G).step()
    assert same(D, before)
    before = copies(G)
    game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
    Adam(D).step()
    assert same(G, before)


def test_gradients_are_cleared_between_the_losses_and_the_steps(game):
    """Neither verb adds to what another step or loss has left."""
    x, z = game.sample(), game.draw_noise()
    found = []
    for _ in range(2):
        game.discriminator_gradient(x, game.fakes(z))
        game.generator_gradient(game.fakes(z))
        found.append([copies(game.G)[1], copies(game.D)[1]])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_ds_gradient_is_that_of_real_plus_that_of_fake(backend64):
    """Two call sites at once: neither pass uses the other's activations."""
    game = game_of(get_preset("goodfellow2014"), backend64)
    D, x = game.D, game.sample()
    fakes = game.fakes(game.draw_noise())
    game.discriminator_gradient(x, fakes)
    together = backend64.to_host(D.gradients)
    _, d_real, d_fake = game.objective.discriminator(
        game.real_logits, game.fake_logits, D.cache("losses")
    )
    D.gradients.fill(0)
    for batch, d, name in [(x, d_real, "D(x)"), (fakes, d_fake, "D(G(z))")]:
        site = D.cache(name, noise=game.noise)  # the name enters the dropout masks
        D.forward(batch, site)
        D.backward(d, site)
    np.testing.assert_allclose(backend64.to_host(D.gradients), together, rtol=1e-12, atol=1e-15)


# ---- simultaneous is "G first, D on the same detached fakes" -------------------------------------


def g_first_on_detached_fakes(game, ascend_D, descend_G):
    """The loop of the popular tutorials, written out, D judging the fakes twice."""
    G, D, bce = game.G, game.D, game.objective
    game.noise.sub = 1
    z, x = game.draw_noise(), game.sample()
    fakes = G.forward(z, game.G_of_z)
    detached = fakes.copy()
    logits = D.forward(fakes, game.D_of_fakes)
    _, d_logits = bce.generator(logits, game._losses)
    G.gradients.fill(0)
    G.backward(D.backward(d_logits, game.D_of_fakes, param_grads=False), game.G_of_z)
    descend_G()
    real, fake = D.forward(x, game.D_of_x), D.forward(detached, game.D_of_fakes)
    _, d_real, d_fake = bce.discriminator(real, fake, game._losses)
    D.gradients.fill(0)
    D.backward(d_real, game.D_of_x)
    D.backward(d_fake, game.D_of_fakes)
    ascend_D()


def trained(preset, backend, order, steps=15, rescaled=True):
    game = game_of(PRESETS[preset], backend)
    game._proportional &= rescaled
    D_adam, G_adam = Adam(game.D, 2e-3, beta1=0.5), Adam(game.G, 2e-3, beta1=0.5)

    def descend_G():
        G_adam.step()
        game.G.update_statistics(game.G_of_z)

    for game.noise.step in range(1, steps + 1):
        order(game, D_adam.step, descend_G)
    return copies(game.G), copies(game.D)


@pytest.mark.parametrize("preset", ["mlp-leaky", "mlp-leaky-bn", "goodfellow2014"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_g_first_with_reused_fakes_is_simultaneous_bit_for_bit(preset, dtype, open_backend):
    ours = trained(preset, open_backend(dtype), simultaneous, rescaled=False)
    theirs = trained(preset, open_backend(dtype), g_first_on_detached_fakes)
    for player, twin in zip(ours, theirs, strict=True):
        for a, b in zip(player, twin, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("preset", ["mlp-leaky", "mlp-leaky-bn", "goodfellow2014"])
def test_and_with_the_shortcut_up_to_rounding(preset, backend64):
    ours = trained(preset, backend64, simultaneous)
    theirs = trained(preset, backend64, g_first_on_detached_fakes)
    for player, twin in zip(ours, theirs, strict=True):
        for a, b in zip(player, twin, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_the_orders_are_not_the_same_game(backend):
    ends = [trained("mlp-leaky", backend, order)[0][0] for order in ORDERS.values()]
    for i, end in enumerate(ends):
        assert not any(np.array_equal(end, other) for other in ends[i + 1 :])


def test_alternating_shows_d_the_g_that_has_moved(game):
    seen, fakes = [], game.fakes
    game.fakes = lambda z: seen.append(game.G.backend.to_host(game.G.parameters)) or fakes(z)
    sgd = SGD(game.G, 0.1)
    alternating(game, lambda: None, sgd.step)
    assert not np.array_equal(seen[0], seen[1])


# ---- what a step reports -----------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_metrics(game, order):
    ORDERS[order](game, lambda: None, lambda: None)
    to_host = game.D.backend.to_host
    real, fake = to_host(game.real_logits), to_host(game.fake_logits)
    metrics = game.metrics()
    names = ["d_loss", "g_loss", "d_real", "d_fake", "acc_real", "acc_fake"]
    assert list(metrics) == [*names, "penalty", "g_gradient", "spread"]
    gradients = to_host(game.G.gradients)
    np.testing.assert_allclose(metrics["g_gradient"], np.linalg.norm(gradients), rtol=1e-5)
    assert metrics["penalty"] == 0.0
    assert all(type(value) is float for value in metrics.values())
    np.testing.assert_allclose(metrics["d_real"], (1 / (1 + np.exp(-real))).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["d_fake"], (1 / (1 + np.exp(-fake))).mean(), rtol=1e-5)
    assert metrics["acc_real"] == (real > 0).mean()
    assert metrics["acc_fake"] == (fake <= 0).mean()


def test_first_nonfinite_tells_parameters_from_activations(game):
    paper(game, lambda: None, lambda: None)
    assert game.first_nonfinite() is None
    game.D.body.layers[1].W[0, 0] = float("inf")
    assert game.first_nonfinite() == "D layer 1 Dense(12 -> 6): W"


def test_a_step_draws_the_same_whatever_was_played_before():
    """Randomness is a function of the step: a resumed run needs no generator's state."""
    backend = get_backend("numpy")
    straight, jumped = (game_of(get_preset("goodfellow2014"), backend) for _ in range(2))
    for straight.noise.step in range(1, 6):
        paper(straight, lambda: None, lambda: None)
    jumped.noise.step = 5
    paper(jumped, lambda: None, lambda: None)
    np.testing.assert_array_equal(straight.D.gradients, jumped.D.gradients)
    np.testing.assert_array_equal(straight.G.gradients, jumped.G.gradients)
