"""Objective, penalty, packing and noise in the whole game: every preset's two gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow import game_of, with_labels

from tinygan import (
    SGD,
    Network,
    Noise,
    alternating,
    get_backend,
    make_objective,
    paper,
    simultaneous,
)
from tinygan.data import load_world
from tinygan.errors import OptionError, ShapeError
from tinygan.gan import ORDERS, clip_weights, make_penalty
from tinygan.gan.objectives import OBJECTIVES
from tinygan.gan.spread import spread
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import BatchNorm, LayerNorm, Pack
from tinygan.presets import PRESETS, Labels
from tinygan.run import make_game

AXES = {
    "wgan-gp": {"objective": "wgan", "penalty": "gp"},
    "wgan-lp": {"objective": "wgan", "penalty": "gp-one-sided"},
    "hinge and r1": {"objective": "hinge", "penalty": "r1"},
    "lsgan and r2": {"objective": "lsgan", "penalty": "r2"},
    "gan, r1 and noise": {"penalty": "r1", "instance_noise": 0.3},
    "packs of two": {"packing": 2},
    "packs of three, wgan-gp": {
        "objective": "wgan",
        "penalty": "gp",
        "packing": 3,
    },
    "smoothed": {"real_target": 0.9},
}
BARE = {"loss": "logits", "flipped": False, "label_noise": 0.0}  # what goes with any objective


def game_with(preset, axis, backend, **changes):
    if "penalty" in AXES[axis] and preset.startswith("dcgan-radford"):
        changes["d_norm"] = "layer"
    return game_of(replace(PRESETS[preset], **{**BARE, **AXES[axis], **changes}), backend)


def value_of(game, x, z):
    """D's loss as a function of D's parameters, by a pass that leaves D.gradients as they are."""

    def d_loss():
        before = game.D.gradients.copy()
        game.discriminator_gradient(x, game.fakes(z))
        game.D.gradients[...] = before
        return float(game.d_loss)

    return d_loss


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("preset", PRESETS)
def test_both_gradients_on_every_axis(preset, axis, backend64):
    check_both_gradients(game_with(preset, axis, backend64))


def check_both_gradients(game):
    """By differences."""
    x, z = game.sample(), game.draw_noise()
    game.discriminator_gradient(x, game.fakes(z))
    error = check_parameters(value_of(game, x, z), game.D, name="d_loss", entries=12)
    assert error <= 1e-6
    game.generator_gradient(game.fakes(z))

    def g_loss():
        before = game.G.gradients.copy()
        game.generator_gradient(game.fakes(z))
        game.G.gradients[...] = before
        return float(game.g_loss)

    assert check_parameters(g_loss, game.G, name="g_loss", entries=12) <= 1e-6


def listen(game):
    """A list of (call site, input) that grows with every pass of D."""
    heard, forward = [], game.D.forward

    def record(x, cache):
        heard.append((cache, game.D.backend.to_host(x).copy()))
        return forward(x, cache)

    game.D.forward = record
    return heard


def slopes(D, points, labels=None):
    """|grad D| at each point."""
    site = D.cache("by hand")
    site.condition = labels
    logits = D.forward(points, site)
    g = D.backward(D.backend.xp.ones_like(logits), site, param_grads=False)
    return np.sqrt((D.backend.to_host(g) ** 2).reshape(len(g), -1).sum(axis=1))


@pytest.mark.parametrize(("embedding", "penalty"), [(3, "r2"), (None, "gp"), (None, "r1")])
@pytest.mark.parametrize("preset", ["mlp-leaky", "dcgan-pool"])
def test_labels_at_the_points_of_a_penalty(preset, embedding, penalty, backend64):
    """The fakes' are those that G was asked for, all other points have those of x."""
    recipe = with_labels(PRESETS[preset], embedding)
    game = game_of(replace(recipe, **BARE, penalty=penalty), backend64, m=6)
    check_both_gradients(game)
    heard, fakes = listen(game), game.fakes(game.draw_noise())
    game.discriminator_gradient(game.sample(), fakes)
    (points,) = (backend64.from_host(x, "float64") for site, x in heard if site is game.D_of_x_hat)
    asked, of_x = game.G_of_z.condition, game.labels_of_x()
    phi = {"gp": lambda r: (r - 1.0) ** 2}.get(penalty, lambda r: 0.5 * r**2)
    of_fakes, of_reals = (
        game.penalty.weight * phi(slopes(game.D, points, labels)).mean() for labels in (asked, of_x)
    )
    assert abs(of_fakes / of_reals - 1.0) > 0.01
    expected = of_fakes if penalty == "r2" else of_reals
    assert float(game.d_penalty) == pytest.approx(expected, rel=1e-9)


def game_in_the_plane(backend, n=32, **changes):
    """As the command line makes it, on the ring's first n points in minibatches of 8; the data."""
    recipe, data = replace(PRESETS["ring-best"], batch_size=8, **changes), load_world("ring", n)
    noise = Noise(0, backend, step=1)
    G = Network(recipe.generator(None, recipe.labels), (recipe.latent,), backend, "G", noise)
    D = Network(recipe.make_discriminator(), data.example_shape, backend, "D", noise)
    return make_game(recipe, G, D, data, noise), data


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_halved_loss_halves_its_penalty(objective, halved, backend64):
    """A weight is the papers', where D's loss is a sum; hinge and wgan are never halved."""
    axes = {"objective": objective, "halved": halved, "penalty": "r1", "penalty_weight": 10.0}
    game, _ = game_in_the_plane(backend64, **axes)
    x = game.sample()
    game.discriminator_gradient(x, game.fakes(game.draw_noise()))
    whole, *_ = make_objective(objective, halved=False).discriminator(
        game.real_logits, game.fake_logits, game.D.cache("whole")
    )
    share = 0.5 if halved and objective not in ("hinge", "wgan") else 1.0
    penalty = 10.0 * 0.5 * (slopes(game.D, x) ** 2).mean()
    assert penalty > 0.1
    assert float(game.d_loss) == pytest.approx(share * (float(whole) + penalty), rel=1e-9)


def test_the_k_minibatches_of_a_step_are_disjoint_in_the_plane(backend):
    game, data = game_in_the_plane(backend, k=2)
    seen = []
    for game.noise.step in (1, 2):
        for game.noise.sub in (1, 2):
            seen += backend.to_host(game.sample()).tolist()
    assert sorted(seen) == sorted(data.points.tolist())


def test_a_penalty_left_out_of_the_gradient_is_found(backend64):
    game = game_with("mlp-leaky", "wgan-gp", backend64)
    x, z = game.sample(), game.draw_noise()
    penalised, game.penalty = game.penalty, None
    game.discriminator_gradient(x, game.fakes(z))
    game.penalty = penalised
    with pytest.raises(GradientError):
        check_parameters(value_of(game, x, z), game.D)


def test_the_penalty_is_a_part_of_the_loss_and_a_metric(backend64):
    game = game_with("mlp-leaky", "wgan-gp", backend64)
    paper(game, lambda: None, lambda: None)
    with_it = game.metrics()
    game.penalty = None
    paper(game, lambda: None, lambda: None)
    without = game.metrics()
    assert without["penalty"] == 0.0
    np.testing.assert_allclose(with_it["d_loss"] - with_it["penalty"], without["d_loss"])
    assert with_it["penalty"] > 0.0


def test_batchnorm_in_d_does_not_go_with_a_penalty(backend):
    preset = replace(PRESETS["dcgan-radford"], penalty="gp")
    with pytest.raises(OptionError, match=r"D layer \d+ BatchNorm.*--d-norm layer"):
        game_of(preset, backend)
    game = game_of(replace(preset, d_norm="layer"), backend)
    kinds = [type(layer) for _, layer in game.D.layers()]
    assert LayerNorm in kinds
    assert BatchNorm not in kinds


def test_layernorm_has_something_to_replace():
    with pytest.raises(OptionError, match="this D has no BatchNorm"):
        replace(PRESETS["mlp-leaky"], d_norm="layer").make_discriminator()


@pytest.mark.parametrize("order", ORDERS)
def test_instance_noise_is_on_all_that_d_sees_and_not_on_the_samples(order, backend):
    clean = game_with("mlp-leaky", "smoothed", backend)
    noisy = game_with("mlp-leaky", "smoothed", backend, instance_noise=0.5)
    for game in (clean, noisy):
        ORDERS[order](game, lambda: None, lambda: None)
    to_host = backend.to_host
    for name in ("shown_x", "shown"):
        difference = to_host(getattr(noisy, name)) - to_host(getattr(clean, name))
        assert 0.35 < difference.std() < 0.65
    z = noisy.draw_noise()
    np.testing.assert_array_equal(to_host(noisy.fakes(z)), to_host(clean.fakes(z)))


@pytest.mark.parametrize("combined", [False, True])
def test_instance_noise_on_x_is_not_that_on_the_fakes(combined, backend):
    seen = []
    for std in (0.0, 0.5):
        changes = {**BARE, "combined": combined, "instance_noise": std}
        game = game_of(replace(PRESETS["mlp-leaky"], **changes), backend, m=64)
        heard = listen(game)
        game.discriminator_gradient(game.sample(), game.fakes(game.draw_noise()))
        seen.append(np.concatenate([x for _, x in heard]))
    one, other = np.split(seen[1] - seen[0], 2)
    assert one.shape == (64, 4, 3, 1)
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert abs(correlation) < 5.0 / one.size**0.5


@pytest.mark.parametrize("std", [0.0, 0.5])
@pytest.mark.parametrize("order", ORDERS)
def test_spread_is_that_of_the_samples_without_noise(order, std, backend64):
    game = game_with("mlp-leaky", "smoothed", backend64, instance_noise=std)
    made, drawn, fakes, sample = [], [], game.fakes, game.sample
    game.fakes = lambda z: made.append(fakes(z).copy()) or made[-1]
    game.sample = lambda: drawn.append(sample().copy()) or drawn[-1]
    ORDERS[order](game, lambda: None, lambda: None)
    expected = float(spread(made[-1], drawn[-1], backend64))
    assert game.metrics()["spread"] == pytest.approx(expected, rel=1e-12)


def test_noise_does_not_hide_that_all_fakes_are_alike(backend):
    game = game_with("mlp-leaky", "smoothed", backend, instance_noise=0.5)
    game.G.parameters.fill(0)
    paper(game, lambda: None, lambda: None)
    assert game.metrics()["spread"] < 0.05


def test_instance_noise_is_drawn_anew_for_every_turn(backend):
    game = game_with("mlp-leaky", "smoothed", backend, instance_noise=0.5)
    x, seen = game.sample(), []
    for game.noise.step, game.noise.sub in [(1, 1), (1, 2), (2, 1), (1, 1)]:
        seen.append(backend.to_host(game._noisy(x, "x")).copy())
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    np.testing.assert_array_equal(seen[0], seen[3])


@pytest.mark.parametrize("order", [paper, simultaneous, alternating])
@pytest.mark.parametrize("combined", [False, True])
def test_a_packed_d_answers_once_for_every_pack(order, combined, backend):
    game = game_with("mlp-leaky", "packs of two", backend, combined=combined)
    order(game, lambda: None, lambda: None)
    assert game.real_logits.shape == game.fake_logits.shape == (4, 1)
    assert len(game.x) == len(game.shown) == 8
    assert all(np.isfinite(value) for value in game.metrics().values())


@pytest.mark.parametrize(("combined", "words"), [(False, "that 2 divides: 7"), (True, "no packs")])
def test_a_pack_is_of_one_kind(combined, words, backend):
    """14 samples would make seven packs, one of them of a fake and a real one."""
    game = game_with("mlp-leaky", "packs of two", backend, combined=combined)
    with pytest.raises(ShapeError, match=words):
        game.discriminator_gradient(game.sample()[:7], game.fakes(game.draw_noise()[:7]))


def test_a_pack_is_samples_that_follow_one_another(backend):
    pack = Pack(2)
    site = game_with("mlp-leaky", "packs of two", backend).D.cache("alone")
    x = backend.from_host(np.arange(8, dtype="float32").reshape(4, 2))
    packed = backend.to_host(pack.forward(x, site))
    np.testing.assert_array_equal(packed, [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_a_pack_has_no_label():
    preset = replace(PRESETS["mlp-leaky"], packing=2, labels=Labels(10))
    with pytest.raises(OptionError, match="--packing does not go with --conditional"):
        preset.make_discriminator()


def test_accuracy_of_a_critic_is_read_halfway_between_its_mean_scores(backend):
    game = game_with("mlp-leaky", "wgan-gp", backend)
    paper(game, lambda: None, lambda: None)
    before = game.metrics()
    game.real_logits, game.fake_logits = game.real_logits + 7.0, game.fake_logits + 7.0
    after = game.metrics()
    assert (after["acc_real"], after["acc_fake"]) == (before["acc_real"], before["acc_fake"])
    np.testing.assert_allclose(after["d_real"], before["d_real"] + 7.0, rtol=1e-5)


def test_clipping_bounds_every_parameter(backend):
    game = game_with("mlp-leaky", "smoothed", backend)
    clip_weights(game.D, 0.05)
    assert float(abs(game.D.parameters).max()) <= np.float32(0.05)
    game.D.body.layers[1].W[0, 0] = 0.01
    clip_weights(game.D, 0.05)
    assert float(game.D.body.layers[1].W[0, 0]) == np.float32(0.01)


def test_a_penalty_takes_its_draws_from_the_step():
    """The same step of a resumed run has the same points between x and the fakes."""
    backend = get_backend("numpy")
    straight, resumed = (game_with("mlp-leaky", "wgan-gp", backend) for _ in range(2))
    for straight.noise.step in (1, 2, 3):
        paper(straight, SGD(straight.D, 0.0).step, lambda: None)
    resumed.noise.step = 3
    paper(resumed, SGD(resumed.D, 0.0).step, lambda: None)
    np.testing.assert_array_equal(straight.D.gradients, resumed.D.gradients)


def test_a_penalty_has_a_weight_above_zero():
    with pytest.raises(OptionError):
        make_penalty("gp", 0.0)
