"""The same seed, the same game: CuPy's losses beside NumPy's after 1, 10 and 100 steps of every
preset, in its narrow copy. On the stand-in or, with `--backend cupy`, on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from narrow import game_of

from tinygan import Noise, get_backend
from tinygan.backend import Backend
from tinygan.backend.cupy_backend import CupyBackend
from tinygan.gan import ORDERS
from tinygan.presets import PRESETS

Open = Callable[..., Backend]

# How far two losses may be apart, relative to the loss (or to 0.1, if it is smaller), after so many
# steps. NumPy in float32 measured, beside itself in float64, at most 6e-7, 4e-5 and 2e-4 over
# several seeds and the twelve presets: one step only rounds, but then a unit next to zero finds
# itself on the other side of a kink, or Adam makes a whole step of a gradient that is rounding
# alone. What sums in another order may do as much; the bounds are four to seven times it. float64
# has room for the same: 2e-15, 6e-14 and 4e-13 were measured on the stand-in.
BOUNDS = {
    "float32": {1: 4e-6, 10: 2e-4, 100: 1e-3},
    "float64": {1: 1e-13, 10: 1e-11, 100: 1e-10},
}


def losses(name: str, backend: Backend, prepare: Callable[[Any], None] | None = None) -> np.ndarray:
    """Of D and of G after the steps of BOUNDS, one row each; the step is captured."""
    preset = PRESETS[name]
    game = game_of(preset, backend, m=16)
    if prepare is not None:
        prepare(game)
    G, D = (preset.optimiser(net, preset.lr, 100) for net in (game.G, game.D))

    def descend_G() -> None:
        G.step()
        game.G.update_statistics(game.G_of_z)

    step = backend.capture(lambda: ORDERS[preset.order](game, D.step, descend_G, preset.k))
    rows = []
    for game.noise.step in range(1, 101):
        step()
        if game.noise.step in BOUNDS["float32"]:
            rows.append([float(game.d_loss), float(game.g_loss)])
    return np.array(rows)


def distances(given: np.ndarray, expected: np.ndarray) -> dict[int, float]:
    """By the number of steps."""
    relative = np.abs(given - expected) / np.maximum(np.abs(expected), 0.1)
    return dict(zip(BOUNDS["float32"], relative.max(axis=1).tolist(), strict=True))


def too_far(given: dict[int, float], dtype: str = "float32") -> list[int]:
    """After which numbers of steps; a NaN is too far."""
    return [steps for steps, bound in BOUNDS[dtype].items() if not given[steps] <= bound]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PRESETS)
def test_losses_agree_with_numpy(open_device: Open, name: str, dtype: str) -> None:
    apart = distances(losses(name, open_device(dtype)), losses(name, get_backend("numpy", dtype)))
    assert too_far(apart, dtype) == [], apart


def test_the_bounds_are_those_of_rounding() -> None:
    """On the preset that it moves most, with several seeds: what 100 steps make of the rounding of
    the first is luck, whether a unit finds itself on the other side of a kink or none does."""
    worst = dict.fromkeys(BOUNDS["float32"], 0.0)
    for more in range(4):

        def reseed(game: Any, more: int = more) -> None:
            game.noise.seed += more

        single, double = (
            losses("mlp-batchnorm", get_backend("numpy", dtype), reseed)
            for dtype in ("float32", "float64")
        )
        apart = distances(single, double)
        worst = {steps: max(worst[steps], apart[steps]) for steps in worst}
    assert too_far(worst) == [], worst
    assert worst[1] > BOUNDS["float32"][1] / 100  # and not very many times as wide


@pytest.mark.parametrize("step", [1, 10, 100])
@pytest.mark.parametrize("sub", [0, 1])
def test_noise_is_the_same_bits(open_device: Open, step: int, sub: int) -> None:
    def draws(backend: Backend) -> list[np.ndarray]:
        noise = Noise(7, backend, step, sub)
        bits = [noise.words("z", 64 * 100), noise.integers("minibatch", 64, 60_000)]
        bits.append(noise.permutation("epoch", 500))
        return [backend.to_host(array) for array in (*bits, noise.normal("z", (64, 100)))]

    *given, z = draws(open_device())
    *expected, numpys = draws(get_backend("numpy"))
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_max_ulp(z, numpys, maxulp=1)  # cosines in float64, then rounded


# ---- negative controls ---------------------------------------------------------------------------


def test_noise_of_another_seed_is_seen(open_device: Open) -> None:
    def reseed(game: Any) -> None:
        game.noise.seed += 1

    expected = losses("mlp-leaky", get_backend("numpy"))
    apart = distances(losses("mlp-leaky", open_device(), reseed), expected)
    assert too_far(apart) == [1, 10, 100]


def test_a_misplaced_eps_is_seen(open_device: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """m / sqrt(v + eps): less than float32 rounds, and far more than float64 does."""

    def adam(
        self: Any, theta: Any, grad: Any, m: Any, v: Any, beta1: float, beta2: float, rates: Any
    ) -> None:
        m *= beta1
        m += grad
        v *= beta2
        v += grad * grad
        theta -= rates[0] * m / self.xp.sqrt(v + rates[1])

    monkeypatch.setattr(CupyBackend, "adam", adam)
    expected = losses("mlp-leaky", get_backend("numpy", "float64"))
    apart = distances(losses("mlp-leaky", open_device("float64")), expected)
    assert too_far(apart, "float64") == [10, 100], apart  # the first losses are before any move


def test_tf32_is_seen(open_device: Open) -> None:
    """Products of inputs with ten bits behind the point do not keep to the bounds of float32."""
    open_device()
    tf32 = get_backend("cupy", precision="tf32")
    apart = distances(losses("mlp-leaky", tf32), losses("mlp-leaky", get_backend("numpy")))
    assert 1 in too_far(apart), apart
    assert apart[100] < 0.1, apart
