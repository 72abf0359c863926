"""Objective, penalty, packing and noise in the whole game: every preset's two gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow import game_of

from tinygan import SGD, alternating, get_backend, paper, simultaneous
from tinygan.errors import OptionError
from tinygan.gan import ORDERS, clip_weights, make_penalty
from tinygan.gradcheck import GradientError, check_parameters
from tinygan.nn import BatchNorm, LayerNorm, Pack
from tinygan.presets import PRESETS, Labels

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
    game = game_with(preset, axis, backend64)
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


@pytest.mark.parametrize("order", ORDERS)
def test_layernorm_has_something_to_replace():
    with pytest.raises(OptionError, match="this D has no BatchNorm"):
        replace(PRESETS["mlp-leaky"], d_norm="layer").make_discriminator()


def test_instance_noise_is_on_all_that_d_sees_and_not_on_the_samples(order, backend):
    clean = game_with("mlp-leaky", "smoothed", backend)
    noisy = game_with("mlp-leaky", "smoothed", backend, instance_noise=0.5)
    for game in (clean, noisy):
        ORDERS[order](game, lambda: None, lambda: None)
    to_host = backend.to_host
    for name in ("x", "shown"):
        difference = to_host(getattr(noisy, name)) - to_host(getattr(clean, name))
        assert 0.35 < difference.std() < 0.65
    z = noisy.draw_noise()
    np.testing.assert_array_equal(to_host(noisy.fakes(z)), to_host(clean.fakes(z)))


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
