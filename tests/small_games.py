"""The presets' games in small: same layers, order, loss and optimiser, widths of a dozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinygan import SGD, Adam, Game, Network, Noise, Sequential, make_objective
from tinygan.backend import Backend
from tinygan.data.minibatches import Minibatches
from tinygan.gan import ORDERS
from tinygan.nn import (
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    Maxout,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)
from tinygan.optim import Optimiser, decay, ramp

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 1), np.uint8)
BATCH, LATENT = 8, 5


@dataclass
class SmallGame:
    game: Game
    G_optimiser: Optimiser
    D_optimiser: Optimiser
    order: str
    k: int = 1

    def play(self, step: int) -> None:
        self.game.noise.step = step
        self.move()

    def move(self) -> None:
        ORDERS[self.order](self.game, self.D_optimiser.step, self._descend_G, self.k)

    def captured(self) -> SmallGame:
        """From now on, steps go through the backend's `capture`."""
        self.move = self.game.D.backend.capture(self.move)  # type: ignore[method-assign]
        return self

    def _descend_G(self) -> None:
        self.G_optimiser.step()
        self.game.G.update_statistics(self.game.G_of_z)

    def state(self) -> dict[str, np.ndarray]:
        """All parameters, statistics and moments, as NumPy arrays."""
        parts = {
            "G": self.game.G.state(),
            "D": self.game.D.state(),
            "G_optimiser": self.G_optimiser.state(),
            "D_optimiser": self.D_optimiser.state(),
        }
        return {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}


def _game(
    backend: Backend, G: Sequential, D: Sequential, loss: str, replacement: bool, k: int
) -> Game:
    noise = Noise(1, backend)
    low = -1.0 if isinstance(G.layers[-2], Tanh) else 0.0
    return Game(
        Network(G, (LATENT,), backend, "G", noise),
        Network(D, (6, 6, 1), backend, "D", noise),
        make_objective("non-saturating", loss),
        lambda: noise.normal("z", (BATCH, LATENT)),
        Minibatches(IMAGES, BATCH, noise, (low, 1.0), k, replacement),
        noise,
    )


def mlp_batchnorm(backend: Backend) -> SmallGame:
    G = Sequential(
        Dense(LATENT, 12),
        LeakyReLU(0.2),
        BatchNorm(12, momentum=0.8, eps=1e-3),
        Dense(12, 36),
        Tanh(),
        Reshape(6, 6, 1),
    )
    D = Sequential(Flatten(), Dense(36, 10), LeakyReLU(0.2), Dense(10, 1))
    game = _game(backend, G, D, "logits", replacement=True, k=2)
    return SmallGame(game, Adam(game.G, 1e-3, 0.5), Adam(game.D, 1e-3, 0.5), "paper", k=2)


def mlp_leaky(backend: Backend) -> SmallGame:
    G = Sequential(Dense(LATENT, 12), LeakyReLU(0.2), Dense(12, 36), Tanh(), Reshape(6, 6, 1))
    D = Sequential(Flatten(), Dense(36, 10), LeakyReLU(0.2), Dense(10, 1))
    game = _game(backend, G, D, "probabilities", replacement=False, k=1)
    return SmallGame(game, Adam(game.G, 1e-3, 0.5), Adam(game.D, 1e-3, 0.5), "alternating")


def goodfellow2014(backend: Backend) -> SmallGame:
    G = Sequential(Dense(LATENT, 12), ReLU(), Dense(12, 36), Sigmoid(), Reshape(6, 6, 1))
    D = Sequential(
        Flatten(),
        Dropout(keep=0.8),
        Maxout(36, units=9, pieces=5),
        Dropout(keep=0.5),
        Dense(9, 1),
    )
    game = _game(backend, G, D, "logits", replacement=False, k=1)
    rate, momentum = decay(0.1, 1.000004, floor=1e-6), ramp(0.5, 0.7, steps=250)
    optimisers = SGD(game.G, rate, momentum), SGD(game.D, rate, momentum)
    return SmallGame(game, *optimisers, "simultaneous")


SMALL_GAMES: dict[str, Callable[[Backend], SmallGame]] = {
    "mlp-batchnorm": mlp_batchnorm,
    "mlp-leaky": mlp_leaky,
    "goodfellow2014": goodfellow2014,
}


def play(small: SmallGame, steps: int) -> list[dict[str, float]]:
    metrics = []
    for step in range(1, steps + 1):
        small.play(step)
        metrics.append(small.game.metrics())
    return metrics


def largest_difference(a: SmallGame, b: SmallGame, steps: int) -> float:
    """Over metrics of every step, and over all tensors after the last one."""
    metrics = zip(play(a, steps), play(b, steps), strict=True)
    differences = [abs(x[name] - y[name]) for x, y in metrics for name in x]
    other = b.state()
    for name, tensor in a.state().items():
        differences.append(float(np.abs(tensor - other[name]).max()))
    return float(np.max(differences))  # a NaN stays one
