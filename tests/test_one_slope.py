"""[alg.8]: in simultaneous play G's gradient on a fake is a multiple of D's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow import game_of, with_labels

from tinygan import Game, Network, Noise, make_objective, simultaneous
from tinygan.gan import algorithm1, make_penalty
from tinygan.gan.objectives import OBJECTIVES, Objective, bce_with_logits
from tinygan.gradcheck import check_parameters
from tinygan.nn import BatchNorm, Dense, Layer, LeakyReLU, Sequential, Tanh
from tinygan.nn.initialisers import zeros
from tinygan.presets import PRESETS

BARE = {"loss": "logits", "flipped": False, "label_noise": 0.0, "d_norm": None}
GAMES = {name: replace(preset, combined=False) for name, preset in PRESETS.items()}
COMBINED = ("dcgan-tf", "dcgan-pool", "dcgan-radford", "goodfellow2014", "ring-published")
GAMES |= {f"{name} combined": replace(GAMES[name], combined=True) for name in COMBINED}
GAMES |= {f"{name} with labels": with_labels(GAMES[name]) for name in ("mlp-leaky", "dcgan-tf")}
GAMES["dcgan-tf with embedded labels"] = with_labels(GAMES["dcgan-tf"], embedding=3)
GAMES["ring-published in packs"] = replace(GAMES["ring-published"], packing=3)
GAMES["dcgan-tf and noise"] = replace(GAMES["dcgan-tf"], instance_noise=0.3)
GAMES["mlp-leaky and r2"] = replace(GAMES["mlp-leaky"], penalty="r2")


def couples(game):
    return any(isinstance(layer, BatchNorm) for _, layer in game.D.layers())


def passes_down(game):
    """A list that grows with every backward pass from D(G(z)): whether it was G's."""
    passes, backward = [], game.D.backward

    def listen(dy, cache, param_grads=True, input_grad=True):
        if cache is game.D_of_fakes or (cache is game.D_of_both and not param_grads):
            passes.append(not param_grads)
        return backward(dy, cache, param_grads, input_grad)

    game.D.backward = listen
    return passes


def played(game, rescaled=True):
    """Both gradients as `simultaneous` takes them, and whether G's took a pass through D."""
    taken = []

    def look():
        taken.append(game.D.backend.to_host(game.D.gradients))
        taken.append(game.D.backend.to_host(game.G.gradients))

    game._proportional &= rescaled
    passes = passes_down(game)
    simultaneous(game, look, lambda: None)
    return taken, any(passes)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", GAMES)
def test_the_multiple_is_the_gradient(name, objective, backend64):
    preset = replace(GAMES[name], **BARE)
    game, plain = (game_of(preset, backend64, name=objective) for _ in range(2))
    (d, g), took_a_pass = played(game)
    (d_plain, g_plain), plain_took_a_pass = played(plain, rescaled=False)
    np.testing.assert_allclose(g, g_plain, rtol=0, atol=1e-12 * abs(g_plain).max())
    np.testing.assert_array_equal(d, d_plain)
    assert plain_took_a_pass
    if couples(game) or not backend64.instant:
        assert took_a_pass
    elif objective != "hinge" and abs(backend64.to_host(game.fake_logits)).max() < 13.0:
        assert not took_a_pass


@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("objective", ["minimax", "non-saturating"])
def test_the_multiple_by_differences(objective, loss, backend64):
    game = game_of(PRESETS["dcgan-tf"], backend64, name=objective, loss=loss)
    x, z = game.sample(), game.draw_noise()

    def g_loss():
        fakes = game.fakes(z)
        game.discriminator_gradient(x, fakes, slopes=True)
        game.generator_gradient(fakes, judged=True)
        return float(game.g_loss)

    g_loss()
    assert check_parameters(g_loss, game.G, name="g_loss", entries=25) <= 1e-6


def surer(game, by):
    """The game, D's last bias moved so far."""
    game.D.named_parameters()[list(game.D.named_parameters())[-1]][...] += by
    return game


@pytest.mark.parametrize(("objective", "loss"), [("non-saturating", "logits"), ("hinge", "logits")])
@pytest.mark.parametrize("by", [-16.0, -60.0, -200.0, -1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_d_that_is_sure_is_asked_again(by, objective, loss, dtype, open_backend):
    """Its own gradient is next to nothing, or nothing: no multiple of that is G's."""
    games = [
        surer(game_of(PRESETS["mlp-leaky"], open_backend(dtype), name=objective, loss=loss), by)
        for _ in range(2)
    ]
    (_, g), took_a_pass = played(games[0])
    (_, g_plain), _ = played(games[1], rescaled=False)
    assert took_a_pass
    assert np.isfinite(g).all()
    assert abs(g).max() > 1e-6
    np.testing.assert_array_equal(g, g_plain)


@pytest.mark.parametrize("by", [-8.0, 12.0, 40.0])
def test_float32_keeps_its_digits_up_to_the_largest_factor(by, open_backend):
    games = [surer(game_of(PRESETS["dcgan-tf"], open_backend("float32")), by) for _ in range(2)]
    (_, g), took_a_pass = played(games[0])
    (_, g_plain), _ = played(games[1], rescaled=False)
    assert took_a_pass != games[0].D.backend.instant
    np.testing.assert_allclose(g, g_plain, rtol=0, atol=3e-6 * abs(g_plain).max())


def test_nothing_is_left_from_another_turn(backend64):
    """After a turn of D without slopes, G's asks D itself."""
    game = game_of(GAMES["mlp-leaky"], backend64)
    played(game)
    game.discriminator_gradient(game.sample(), fakes := game.fakes(game.draw_noise()))
    passes = passes_down(game)
    game.generator_gradient(fakes, judged=True)
    assert passes == [True]


def test_where_both_gradients_are_nothing_there_is_no_factor(open_backend):
    """Probabilities beyond the clip: 0 / 0."""
    options = {"name": "non-saturating", "loss": "probabilities"}
    for by in (-20.0, 20.0):
        games = [
            surer(game_of(PRESETS["mlp-leaky"], open_backend("float64"), **options), by)
            for _ in range(2)
        ]
        (_, g), took_a_pass = played(games[0])
        (_, g_plain), _ = played(games[1], rescaled=False)
        assert took_a_pass
        np.testing.assert_array_equal(g, g_plain)


def test_other_fakes_are_not_rescaled(backend64):
    game = game_of(GAMES["mlp-leaky"], backend64)
    played(game)
    passes = passes_down(game)
    game.generator_gradient(game.fakes(game.draw_noise()))
    assert passes == [True]


def test_gs_gradient_may_be_asked_for_twice(backend64):
    game = game_of(GAMES["mlp-leaky"], backend64)
    fakes, found = game.fakes(game.draw_noise()), []
    game.discriminator_gradient(game.sample(), fakes, slopes=True)
    for _ in range(2):
        game.generator_gradient(fakes, judged=True)
        found.append(backend64.to_host(game.G.gradients))
    np.testing.assert_array_equal(*found)


class Shift(Layer):
    """y = x + b. Its backward hands on what it gets."""

    def __init__(self, n):
        super().__init__()
        self.parameters["b"] = ((n,), zeros)

    def output_shape(self, shape):
        return shape

    def forward(self, x, cache):
        return x + self.views["b"]

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        if param_grads:
            cache.backend.add_column_sums(dy, out=self.views["db"])
        return dy

    def jvp(self, t, cache):
        return t

    def jvp_backward(self, dy, dty, cache, param_grads=True):
        return (None if dy is None else self.backward(dy, cache, param_grads)), dty


def small_game(backend, objective, penalty=None):
    noise, m = Noise(0, backend, step=1), 6
    G = Network(Sequential(Dense(2, 3), Tanh()), (2,), backend, "G", noise)
    body = Sequential(Shift(3), Dense(3, 4), LeakyReLU(), Dense(4, 1))
    D = Network(body, (3,), backend, "D", noise)
    for net in (G, D):
        net.parameters += noise.normal(f"test {net.name}", net.parameters.shape, std=0.5)
    return Game(
        G,
        D,
        objective,
        lambda: noise.normal("z", (m, 2)),
        lambda: noise.uniform("x", (m, 3), -1.0, 1.0),
        noise,
        penalty=make_penalty(penalty, 10.0) if penalty else None,
    )


@pytest.mark.parametrize("penalty", [None, "gp", "gp-one-sided", "r1", "r2"])
def test_slopes_that_the_first_layer_hands_on(penalty, backend64):
    """They lie in memory that is lent: the penalty's passes write there before G's turn."""
    games = [small_game(backend64, make_objective(), penalty) for _ in range(2)]
    (_, g), _ = played(games[0])
    (_, g_plain), _ = played(games[1], rescaled=False)
    np.testing.assert_allclose(g, g_plain, rtol=0, atol=1e-12 * abs(g_plain).max())


def test_an_objective_that_uses_one_buffer_for_both(backend64):
    def discriminator(real, fake, cache):
        loss_real, d_real = bce_with_logits(real, 1.0, cache["real"])
        loss_fake, d_fake = bce_with_logits(fake, 0.0, cache["fake"])
        return loss_real + loss_fake, d_real, d_fake

    def generator(fake, cache):
        return bce_with_logits(fake, 1.0, cache["fake"])

    games = [small_game(backend64, Objective(discriminator, generator)) for _ in range(2)]
    (_, g), _ = played(games[0])
    (_, g_plain), _ = played(games[1], rescaled=False)
    np.testing.assert_allclose(g, g_plain, rtol=0, atol=1e-12 * abs(g_plain).max())


def test_one_factor_for_all_fakes_is_found(backend64, monkeypatch):
    if not backend64.instant:
        pytest.skip("no factors on a device")
    monkeypatch.setattr(
        algorithm1, "per_sample", lambda values, like, own: values.mean() + 0.0 * like
    )
    with pytest.raises(AssertionError):
        test_the_multiple_is_the_gradient("dcgan-tf", "non-saturating", backend64)


def test_a_multiple_through_batch_norm_is_found(backend64):
    preset = replace(PRESETS["dcgan-radford"], order="simultaneous")
    game, plain = (game_of(preset, backend64) for _ in range(2))
    assert couples(game)
    if not backend64.instant:
        pytest.skip("no factors on a device")
    game._proportional = True
    (_, g), took_a_pass = played(game)
    (_, g_plain), _ = played(plain, rescaled=False)
    assert not took_a_pass
    assert abs(g - g_plain).max() > 1e-3 * abs(g_plain).max()
