"""Sine curves: the data, the distance to them, the recipe, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinygan import Network, Noise, get_backend
from tinygan.data.curves import AMPLITUDES, NOISE, PLACES, SINE, bounds, curves
from tinygan.errors import DataError, OptionError, ShapeError
from tinygan.gan import ORDERS, Game
from tinygan.metrics.curves import FLOOR, best_amplitude, nearest_sines, noise_of
from tinygan.optim import Adam
from tinygan.presets import SINES
from tinygan.run import make_game

FAMILIES = tuple(AMPLITUDES)
LOG_4 = math.log(4.0)


# ---- the data ------------------------------------------------------------------------------------


def test_curves_are_the_recipes():
    data = curves(20_000)
    assert (data.name, data.points.shape, data.points.dtype) == (
        "sine-curve",
        (20_000, 15),
        np.float32,
    )
    np.testing.assert_array_equal(PLACES, np.linspace(-1, 1, 15))
    noise = data.points - np.sin(np.pi * PLACES)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=5 * NOISE / math.sqrt(20_000))
    np.testing.assert_allclose(noise.std(axis=0), 0.02, rtol=0.03)


def test_each_curve_has_noise_of_its_own():
    """The named deviation: in the source one vector of noise serves the whole batch."""
    noise = curves(20_000).points - SINE
    correlation = np.corrcoef(noise[::2].ravel(), noise[1::2].ravel())[0, 1]
    assert abs(correlation) < 0.02
    shared = np.tile(noise[:1], (20_000, 1))  # the source's way would be seen
    assert np.corrcoef(shared[::2].ravel(), shared[1::2].ravel())[0, 1] > 0.99


def test_the_family_has_amplitudes_uniform_between_its_bounds():
    a = best_amplitude(curves(20_000, family=True).points)
    assert a.mean() == pytest.approx(1.5, abs=0.01)
    assert a.std() == pytest.approx(1 / math.sqrt(12), abs=0.005)
    np.testing.assert_allclose(np.quantile(a, [0.1, 0.5, 0.9]), [1.1, 1.5, 1.9], atol=0.02)
    np.testing.assert_array_equal(bounds("sine-family"), [SINE, 2 * SINE])
    np.testing.assert_array_equal(bounds("sine-curve"), [SINE, SINE])


@pytest.mark.parametrize("family", [False, True])
def test_curves_are_a_function_of_seed_and_place(family):
    few, many = curves(7, 3, family).points, curves(1000, 3, family).points
    np.testing.assert_array_equal(few, many[:7])
    assert not np.array_equal(few, curves(7, 4, family).points)
    assert len(np.unique(many, axis=0)) == 1000


def test_what_is_no_set_of_curves_is_refused():
    with pytest.raises(DataError, match="n >= 1, got 0"):
        curves(0)
    with pytest.raises(OptionError, match="seed must lie in"):
        curves(5, seed=-1)
    with pytest.raises(DataError, match="unknown curves 'cosine'"):
        bounds("cosine")


# ---- the distance --------------------------------------------------------------------------------


def test_the_best_amplitude_is_the_least_of_all():
    """Against trying ten thousand amplitudes, on curves that are anything."""
    y = np.random.default_rng(0).normal(0, 1, (50, 15)) + np.linspace(-2, 3, 50)[:, None] * SINE
    tried = np.linspace(-6, 6, 10_001)
    losses = np.abs(y[:, None] - tried[:, None] * SINE).mean(axis=2)
    ours = np.abs(y - best_amplitude(y)[:, None] * SINE).mean(axis=1)
    assert (ours <= losses.min(axis=1) + 1e-12).all()
    np.testing.assert_allclose(ours, losses.min(axis=1), atol=2e-3)


def test_least_squares_would_be_another_amplitude():
    """The negative control: the amplitude that is nearest in squares is not nearest in this."""
    y = SINE.copy()
    y[3] -= 5.0  # one point gone astray
    squares = (y @ SINE) / (SINE @ SINE)
    assert best_amplitude(y[None])[0] == pytest.approx(1.0)
    assert squares > 1.5
    assert np.abs(y - squares * SINE).mean() > 1.5 * np.abs(y - SINE).mean()


@pytest.mark.parametrize(
    ("family", "curve", "amplitude", "distance"),
    [
        ("sine-curve", SINE, 1.0, 0.0),
        ("sine-curve", 0 * SINE, 1.0, np.abs(SINE).mean()),
        ("sine-curve", 1.5 * SINE, 1.0, 0.5 * np.abs(SINE).mean()),
        ("sine-curve", SINE + 0.1, 1.0, 0.1),
        ("sine-family", 1.5 * SINE, 1.5, 0.0),
        ("sine-family", 2.5 * SINE, 2.0, 0.5 * np.abs(SINE).mean()),
        ("sine-family", -SINE, 1.0, 2 * np.abs(SINE).mean()),
    ],
)
def test_distances_in_closed_form(family, curve, amplitude, distance):
    fit = nearest_sines(curve[None], family)
    np.testing.assert_allclose(fit.amplitude, amplitude)
    np.testing.assert_allclose(fit.distance, distance, atol=1e-14)


def test_real_curves_have_the_floor():
    assert pytest.approx(0.0159577, abs=1e-7) == FLOOR
    fixed = nearest_sines(curves(20_000).points, "sine-curve").distance.mean()
    assert fixed == pytest.approx(FLOOR, rel=0.01)
    fitted = nearest_sines(curves(20_000, family=True).points, "sine-family").distance.mean()
    assert 0.93 * FLOOR < fitted < 0.97 * FLOOR  # one of 15 points' worth of noise is fitted away


def test_the_distance_tells_curves_that_are_wrong():
    """Negative controls: the same values in another order, another frequency, another sign."""
    y = curves(500).points
    shuffled = np.random.default_rng(0).permuted(y, axis=1)
    for wrong in (shuffled, y[:, ::-1], np.sin(2 * np.pi * PLACES) + 0 * y):
        for family in FAMILIES:
            assert nearest_sines(wrong, family).distance.mean() > 20 * FLOOR


def test_noise_is_what_differs_between_curves():
    for family in FAMILIES:
        y = curves(5000, family=family == "sine-family").points
        assert noise_of(y, family) == pytest.approx(NOISE, rel=0.03)
        bent = y + 0.1 * PLACES**2  # wrong, and all in the same way: that is no noise
        assert noise_of(bent, family) == pytest.approx(NOISE, rel=0.2)
    assert noise_of(np.tile(SINE, (9, 1)), "sine-curve") == 0.0


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (np.zeros(15), ShapeError, r"must be \(N, 15\)"),
        (np.zeros((3, 14)), ShapeError, r"got \(3, 14\)"),
        (np.zeros((0, 15)), ShapeError, "N at least 1"),
        (np.full((2, 15), np.nan), DataError, "NaN or infinite"),
    ],
)
def test_what_is_no_curve_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        nearest_sines(given, "sine-curve")
    with pytest.raises(DataError, match="unknown curves"):
        nearest_sines(np.zeros((2, 15)), "square")


# ---- the recipe ----------------------------------------------------------------------------------


def game_of(name: str, seed: int = 0, dtype: str = "float32") -> tuple[Game, Adam, Adam]:
    """The game that the example plays, and both players' optimisers."""
    recipe = SINES[name]
    noise = Noise(seed, get_backend("numpy", dtype))
    data = curves(family=recipe.data == "sine-family")
    G = Network(recipe.generator(None, recipe.labels), (recipe.latent,), noise.backend, "G", noise)
    D = Network(recipe.make_discriminator(), data.example_shape, noise.backend, "D", noise)
    return make_game(recipe, G, D, data, noise), *(recipe.optimiser(n, 1e-4, 1) for n in (G, D))


def test_the_presets_are_the_recipes():
    for name, recipe in SINES.items():
        game, G_optimiser, D_optimiser = game_of(name)
        assert game.G.parameter_count == 5 * 128 + 128 + 128 * 15 + 15
        assert game.D.parameter_count == 15 * 128 + 128 + 128 + 1
        assert (recipe.objective, recipe.halved, recipe.order) == ("minimax", False, "simultaneous")
        assert (recipe.lr, recipe.batch_size, recipe.latent, recipe.k) == (1e-4, 64, 5, 1)
        assert recipe.data == name
        assert recipe.sample_every is not None
        assert 500 % recipe.sample_every == 0  # the source's pictures: steps 500 and 1000
        for optimiser in (G_optimiser, D_optimiser):
            assert (optimiser.beta1, optimiser.beta2) == (0.9, 0.999)
        reach = np.abs(game.G.parameters[: 5 * 128]).max()
        assert 0.9 * 5**-0.5 < reach <= 5**-0.5  # PyTorch's start


def test_the_losses_are_the_papers_minimax():
    """-d_loss is mean log D(x) + log(1 - D(G(z))), g_loss its second half, of the same fakes."""
    game = game_of("sine-curve", dtype="float64")[0]
    game.noise.step = 1
    ORDERS["simultaneous"](game, *[lambda: None] * 2)
    d_real, d_fake = (1 / (1 + np.exp(-a)) for a in (game.real_logits, game.fake_logits))
    value = np.log(d_real).mean() + np.log(1 - d_fake).mean()
    metrics = game.metrics()
    assert -metrics["d_loss"] == pytest.approx(value, rel=1e-12)
    assert metrics["g_loss"] == pytest.approx(np.log(1 - d_fake).mean(), rel=1e-12)


def train(name: str, steps: int, with_D: bool = True) -> tuple[Game, float]:
    """The game after so many steps, and the distance of 2000 of its curves."""
    game, G_optimiser, D_optimiser = game_of(name)
    for game.noise.step in range(1, steps + 1):
        ascend_D = D_optimiser.step if with_D else lambda: None
        ORDERS["simultaneous"](game, ascend_D, G_optimiser.step)
    z = SINES[name].draw_latent(game.noise.at(step=0), "look", 2000)
    y = game.G.forward(z, game.G.cache("look", train=False))
    return game, float(nearest_sines(y, name).distance.mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns(name):
    _, at_start = train(name, 0)
    game, distance = train(name, 1500)
    assert at_start > 0.5
    assert distance < 0.15
    assert -game.metrics()["d_loss"] == pytest.approx(-LOG_4, abs=0.05)


def test_it_does_not_learn_from_a_discriminator_that_does_not():
    """The negative control: it is D that teaches G."""
    _, distance = train("sine-curve", 1500, with_D=False)
    assert distance > 0.4


@pytest.mark.slow
def test_the_family_is_covered_after_its_training():
    game, distance = train("sine-family", 60_000)
    assert distance < 0.06
    z = SINES["sine-family"].draw_latent(game.noise.at(step=0), "look", 2000)
    y = game.G.forward(z, game.G.cache("look", train=False))
    assert best_amplitude(y).std() > 0.1
