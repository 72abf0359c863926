"""D trained to convergence by this library against the best D that theory knows.

Derivations: docs/game.md, docs/optimal-discriminator.md. The data are p = N(0, 1), the fakes
q = N(mu, s²), G(z) = s z + mu. Samples are stratified: the quantiles (i + ½)/N of each, so that an
average over them misses the expectation by less than 3e-4 here, and nothing is random but D's
first weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest

from tinygan import Adam, Game, Network, Noise, Sequential, get_backend, make_objective
from tinygan.gan.constraints import clip_weights
from tinygan.gan.penalties import Penalty, make_penalty
from tinygan.nn import Dense, Layer, LeakyReLU, Sigmoid

BACKEND = get_backend("numpy", "float64")
X = np.linspace(-12.0, 14.0, 20001)  # for integrals: of the widest density 1e-9 are left out
PAIRS = [(1.0, 1.0), (2.0, 1.0), (0.0, 2.0)]  # (mu, s)
VALUES = {(1.0, 1.0): -1.163451, (2.0, 1.0): -0.712633, (0.0, 2.0): -1.200828}
LEAST_SQUARES = {(1.0, 1.0): 0.397973, (2.0, 1.0): 0.224800, (0.0, 2.0): 0.420009}
each_pair = pytest.mark.parametrize(("mu", "s"), PAIRS)


# ---- theory, by quadrature -----------------------------------------------------------------------


def normal(x: np.ndarray, mu: float, s: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mu) / s) ** 2) / (s * math.sqrt(2.0 * math.pi))


def integral(y: np.ndarray) -> float:
    return float(((y[1:] + y[:-1]) * np.diff(X)).sum() / 2.0)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return integral(p * (np.log(p) - np.log(q)))


def jsd(mu: float, s: float) -> float:
    p, q = normal(X, 0.0, 1.0), normal(X, mu, s)
    m = 0.5 * (p + q)
    return 0.5 * kl(p, m) + 0.5 * kl(q, m)


def best_logit(x: np.ndarray, mu: float, s: float) -> np.ndarray:
    """log p/q: for s = 1 the straight line mu²/2 - mu x [best.1]."""
    return -0.5 * x**2 + 0.5 * ((x - mu) / s) ** 2 + math.log(s)


# ---- practice: this library ----------------------------------------------------------------------


@cache
def quantiles(n: int) -> np.ndarray:
    inverse = NormalDist().inv_cdf
    return np.array([[inverse((i + 0.5) / n)] for i in range(n)])


def make_game(
    mu: float, s: float, body: Layer, name: str, n: int = 2048, penalty: Penalty | None = None
) -> Game:
    """G(z) = s z + mu, which nobody will train, against a D of `body`."""
    G = Network(Dense(1, 1), (1,), BACKEND, "G")
    G.body.W, G.body.b = s, mu
    D = Network(body, (1,), BACKEND, "D", Noise(1, BACKEND))
    z, objective = quantiles(n), make_objective(name, halved=False)
    return Game(G, D, objective, lambda: z, lambda: z, Noise(1, BACKEND), penalty=penalty)


def mlp() -> Sequential:
    hidden = Dense(1, 16), LeakyReLU(0.2), Dense(16, 16), LeakyReLU(0.2)
    return Sequential(*hidden, Dense(16, 1))


def train_D(
    game: Game,
    steps: int = 1000,
    lr: float = 0.01,
    swapped: bool = False,
    after: Callable[[], None] = lambda: None,
) -> Game:
    """Let D alone learn, with Adam and a rate that falls to 0 along a cosine."""
    adam = Adam(game.D, lambda t: lr * 0.5 * (1.0 + math.cos(math.pi * t / steps)))
    for game.noise.step in range(1, steps + 1):
        x, fakes = game.sample(), game.fakes(game.draw_noise())
        game.discriminator_gradient(*((fakes, x) if swapped else (x, fakes)))
        adam.step()
        after()
    return game


def D_at(game: Game, x: np.ndarray) -> np.ndarray:
    return game.D.forward(x[:, None], game.D.cache("a look")).ravel().copy()


def value(logit: np.ndarray, mu: float, s: float) -> float:
    """V(D, G) of equation 1, by quadrature."""
    p, q = normal(X, 0.0, 1.0), normal(X, mu, s)
    return -integral(p * np.logaddexp(0.0, -logit) + q * np.logaddexp(0.0, logit))


def bulk(mu: float, s: float) -> np.ndarray:
    """The points of X where the mean density of data and fakes is above 0.1."""
    return 0.5 * (normal(X, 0.0, 1.0) + normal(X, mu, s)) > 0.1


@cache
def trained_minimax(mu: float, s: float) -> Game:
    return train_D(make_game(mu, s, mlp(), "minimax"))


# ---- the value of the game, and the logit: [game.3], [game.4] ----------------------------------


@each_pair
def test_quadrature_gives_the_values_to_recognise(mu, s):
    assert -math.log(4.0) + 2.0 * jsd(mu, s) == pytest.approx(VALUES[mu, s], abs=5e-7)
    assert value(best_logit(X, mu, s), mu, s) == pytest.approx(VALUES[mu, s], abs=5e-7)


@each_pair
def test_quantiles_stand_for_the_densities(mu, s):
    z = quantiles(2048)
    real, fake = best_logit(z, mu, s), best_logit(s * z + mu, mu, s)
    on_samples = -np.logaddexp(0.0, -real).mean() - np.logaddexp(0.0, fake).mean()
    assert 0.0 < on_samples - VALUES[mu, s] < 3e-4


@each_pair
def test_a_trained_D_reaches_the_value_of_the_game(mu, s):
    """By quadrature never above the maximum and 1e-4 below at most; on the samples 3e-4 off."""
    game = trained_minimax(mu, s)
    assert -1e-4 < value(D_at(game, X), mu, s) - VALUES[mu, s] < 1e-6
    assert -float(game.d_loss) == pytest.approx(VALUES[mu, s], abs=3e-4)


@each_pair
def test_a_trained_D_approaches_the_log_density_ratio(mu, s):
    x = X[bulk(mu, s)]
    np.testing.assert_allclose(D_at(trained_minimax(mu, s), x), best_logit(x, mu, s), atol=0.06)


@each_pair
def test_an_error_of_the_logit_costs_its_square(mu, s):
    """max V - V(D) = ½ ∫ (p + q) D*(1 - D*) e², e being the error of D's logit: [best.2]."""
    best, wave = best_logit(X, mu, s), 0.1 * np.sin(3.0 * X)
    p, q = normal(X, 0.0, 1.0), normal(X, mu, s)
    lost = value(best, mu, s) - value(best + wave, mu, s)
    assert lost == pytest.approx(0.5 * integral(p * q / (p + q) * wave**2), rel=0.01)


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_one_dense_layer_is_enough_for_two_normals_of_one_width(mu):
    """A convex problem: W -> -mu, b -> mu²/2, as near as the quantiles are to the densities."""
    game = train_D(make_game(mu, 1.0, Dense(1, 1), "minimax"), steps=600, lr=0.1)
    assert game.D.body.W.item() == pytest.approx(-mu, abs=2e-3)
    assert game.D.body.b.item() == pytest.approx(0.5 * mu * mu, abs=2e-3)


def test_and_not_for_two_widths():
    """Negative control: a straight line cannot tell N(0, 1) from N(0, 2²)."""
    game = train_D(make_game(0.0, 2.0, Dense(1, 1), "minimax"), steps=600, lr=0.1)
    assert value(D_at(game, X), 0.0, 2.0) == pytest.approx(-math.log(4.0), abs=1e-3)


def test_a_D_of_swapped_labels_is_told():
    """Negative control: it learns log q/p."""
    game = train_D(make_game(1.0, 1.0, mlp(), "minimax"), steps=300, swapped=True)
    x = X[bulk(1.0, 1.0)]
    np.testing.assert_allclose(D_at(game, x), -best_logit(x, 1.0, 1.0), atol=0.06)
    assert value(D_at(game, X), 1.0, 1.0) < VALUES[1.0, 1.0] - 0.5


def test_a_D_of_smoothed_labels_stays_below_its_label():
    """D* = 0.9 p/(p + q), and so it misses the value of the game."""
    game = make_game(1.0, 1.0, mlp(), "minimax")
    game.objective = make_objective("minimax", halved=False, real_target=0.9)
    logit = D_at(train_D(game), X)
    best = 0.9 / (1.0 + np.exp(-best_logit(X, 1.0, 1.0)))
    here = bulk(1.0, 1.0)
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-logit[here])), best[here], atol=0.01)
    assert value(logit, 1.0, 1.0) < VALUES[1.0, 1.0] - 0.01


# ---- other objectives ----------------------------------------------------------------------------


@each_pair
def test_least_squares_finds_the_same_probability(mu, s):
    """D* = p/(p + q), and D's loss is the integral of pq/(p + q): [best.3]."""
    game = train_D(make_game(mu, s, mlp(), "lsgan"), lr=0.02)
    p, q = normal(X, 0.0, 1.0), normal(X, mu, s)
    best, here = p / (p + q), bulk(mu, s)
    np.testing.assert_allclose(D_at(game, X)[here], best[here], atol=0.02)
    least = integral(p * q / (p + q))
    assert least == pytest.approx(LEAST_SQUARES[mu, s], abs=5e-7)
    assert float(game.d_loss) == pytest.approx(least, abs=3e-4)


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_hinge_finds_the_sign_and_the_overlap(mu):
    """D* = sign(p - q); its loss is twice the overlap, 2 ∫ min(p, q) = 4 Φ(-mu/2): [best.3]."""
    game = train_D(make_game(mu, 1.0, mlp(), "hinge"))
    far = X[bulk(mu, 1.0) & (np.abs(X - mu / 2.0) > 0.4)]
    np.testing.assert_allclose(D_at(game, far), np.sign(mu / 2.0 - far), atol=0.1)
    overlap = integral(np.minimum(normal(X, 0.0, 1.0), normal(X, mu, 1.0)))
    assert overlap == pytest.approx(2.0 * NormalDist().cdf(-mu / 2.0), abs=1e-6)
    assert float(game.d_loss) == pytest.approx(2.0 * overlap, abs=0.01)


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_a_clipped_critic_measures_the_distance(mu):
    """|W| <= 1: the slope is 1, and E D(x) - E D(G(z)) = mu, Wasserstein's distance: [best.3]."""
    game = make_game(mu, 1.0, Dense(1, 1, b=None), "wgan")
    train_D(game, 300, 0.1, after=lambda: clip_weights(game.D, 1.0))
    assert game.D.body.W.item() == pytest.approx(-1.0, abs=1e-12)
    assert -float(game.d_loss) == pytest.approx(mu, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "weight", "slope"), [("gp", 10.0, 1.05), ("gp", 0.5, 2.0), ("r1", 0.5, 2.0)]
)
def test_a_penalised_critic_is_steeper_than_the_penalty_asks(name, weight, slope):
    """mu = 1. GP: the best slope is 1 + mu/2λ and not 1; R1: mu/γ."""
    penalty = make_penalty(name, weight)
    game = make_game(1.0, 1.0, Dense(1, 1, b=None), "wgan", penalty=penalty)
    train_D(game, 500, 0.1)
    assert game.D.body.W.item() == pytest.approx(-slope, abs=1e-6)


# ---- what G descends when D is the best one ----------------------------------------------------


class Powers(Layer):
    """x (N, 1) -> (x, x²) (N, 2): with one Dense layer on it D holds every log p/q exactly."""

    def output_shape(self, shape):
        return (2,)

    def forward(self, x, cache):
        cache.keep("x", x)
        return np.concatenate([x, x * x], axis=1)

    def backward(self, dy, cache, param_grads=True, input_grad=True):
        return dy[:, :1] + 2.0 * cache.kept("x") * dy[:, 1:]


def G_gradient(name: str, mu: float, s: float, D_of: tuple[float, float]) -> np.ndarray:
    """The library's gradient by (s, mu), through the best D against G(z) = s' z + mu'."""
    last = [Sigmoid()] if name == "lsgan" else []  # whose best D is a probability, not a logit
    game = make_game(mu, s, Sequential(Powers(), Dense(2, 1), *last), name, n=200_000)
    mu_D, s_D = D_of
    dense = game.D.body.layers[1]
    dense.W = np.array([[-mu_D / s_D**2], [0.5 / s_D**2 - 0.5]])
    dense.b = 0.5 * (mu_D / s_D) ** 2 + math.log(s_D)
    np.testing.assert_allclose(dense.W[0] + dense.W[1] + dense.b, best_logit(1.0, mu_D, s_D))
    game.generator_gradient(game.fakes(game.draw_noise()))
    return game.G.gradients.copy()


def reverse_kl(mu: float, s: float) -> float:
    return kl(normal(X, mu, s), normal(X, 0.0, 1.0))


def least_squares(mu: float, s: float) -> float:
    """2 KL(p | m) + ∫ pq/(p + q)."""
    p, q = normal(X, 0.0, 1.0), normal(X, mu, s)
    return 2.0 * kl(p, 0.5 * (p + q)) + integral(p * q / (p + q))


DESCENDED = {
    "minimax": lambda mu, s: 2.0 * jsd(mu, s),
    "non-saturating": lambda mu, s: reverse_kl(mu, s) - 2.0 * jsd(mu, s),
    "wgan": reverse_kl,  # the raw score of a D that holds log p/q
    "lsgan": least_squares,
}


@pytest.mark.filterwarnings("ignore::tinygan.errors.DoubleSigmoidWarning")
@pytest.mark.parametrize(("mu", "s"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.5), (-0.7, 0.8)])
@pytest.mark.parametrize("name", DESCENDED)
def test_G_descends_a_divergence_at_the_best_D(name, mu, s):
    """With D at its best, G's gradient is that of a divergence: [best.4]."""
    F, h = DESCENDED[name], 1e-4
    by_s = (F(mu, s + h) - F(mu, s - h)) / (2.0 * h)
    by_mu = (F(mu + h, s) - F(mu - h, s)) / (2.0 * h)
    found = G_gradient(name, mu, s, D_of=(mu, s))
    np.testing.assert_allclose(found, [by_s, by_mu], atol=2e-5)
    stale = G_gradient(name, mu, s, D_of=(mu + 0.5, s))  # negative control: D lags behind
    assert np.abs(stale - [by_s, by_mu]).max() > 0.03
