"""Optimisers on a network's flat arrays, and schedules. Derivation: docs/optimisers.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygan.backend import Numbers, require_numpy
from tinygan.errors import CheckpointError, OptionError
from tinygan.nn.network import Network

Schedule = Callable[[int], float]  # number of updates already made -> value


def constant(value: float) -> Schedule:
    """The same value at every update."""
    return lambda t: value


def decay(start: float, factor: float, floor: float = 0.0) -> Schedule:
    """max(start / factor^t, floor) after t updates."""
    return lambda t: max(start * factor**-t, floor)  # [sgd.2]


def ramp(start: float, end: float, steps: int, every: int = 1) -> Schedule:
    """From start to end in a straight line over `steps` updates, in stairs of `every` updates."""
    return lambda t: start + (end - start) * min(t // every * every / steps, 1.0)  # [sgd.2]


def hold(value: float, steps: int, end: int) -> Schedule:
    """`value` for `steps` updates, then in a straight line to a hundredth of it at update `end`."""
    return lambda t: value * max(1.0 - max(t - steps, 0) / (end - steps), 0.01)  # [sgd.3]


def _schedule(value: float | Schedule, name: str, below: float = math.inf) -> Schedule:
    if callable(value):
        return value
    _require(name, value, below)
    return constant(value)


def _require(name: str, value: float, below: float = math.inf) -> None:
    if not 0.0 <= value < below:
        bounds = "not negative" if below == math.inf else f"in [0, {below:g})"
        raise OptionError(f"{name} must be finite and {bounds}, got {value:g}")


class Optimiser:
    """Descends a network's `gradients`; its moments are flat arrays of the same layout.

    Raises OptionError for a rate, momentum, beta or eps that makes no sense.
    """

    moments: tuple[str, ...] = ()

    def __init__(self, network: Network, lr: float | Schedule) -> None:
        self.network, self.lr, self.t = network, _schedule(lr, "lr"), 0
        self._moments = {
            name: network.backend.zeros(network.parameters.shape) for name in self.moments
        }

    def step(self) -> None:
        """One update of all parameters, down their gradient."""
        self._update(self.network.backend.numbers(2, self._advance))

    def _advance(self) -> tuple[float, float]:
        """Count one update, and give the two numbers by which it differs from others."""
        raise NotImplementedError

    def _update(self, rates: Numbers) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Moments and the count of updates t, as NumPy arrays."""
        to_host = self.network.backend.to_host
        state = {name: to_host(moment) for name, moment in self._moments.items()}
        return state | {"t": to_host(self.network.backend.zeros((), "int64") + self.t)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a `state()`; CheckpointError if it is another optimiser's or network's."""
        who = f"{type(self).__name__} of {self.network.name}"
        if state.keys() != self._moments.keys() | {"t"}:
            raise CheckpointError(f"{who}: the checkpoint holds {sorted(state)} instead")
        for name, moment in self._moments.items():
            require_numpy(state[name], f"{who}: {name}")
            if state[name].shape != moment.shape:
                raise CheckpointError(
                    f"{who}: {name} has shape {moment.shape} here and {state[name].shape} in the "
                    "checkpoint: another architecture"
                )
        if state["t"] < 0:
            raise CheckpointError(f"{who}: the checkpoint counts {state['t']} steps")
        for name, moment in self._moments.items():
            moment[...] = self.network.backend.from_host(state[name])
        self.t = int(state["t"])


class SGD(Optimiser):
    """v <- momentum·v - lr·g; theta <- theta + v: [sgd.1]."""

    moments = ("velocity",)

    def __init__(
        self, network: Network, lr: float | Schedule, momentum: float | Schedule = 0.0
    ) -> None:
        super().__init__(network, lr)
        self.momentum = _schedule(momentum, "momentum", below=1.0)

    def _advance(self) -> tuple[float, float]:
        rates = self.lr(self.t), self.momentum(self.t)
        self.t += 1
        return rates

    def _update(self, rates: Numbers) -> None:
        net = self.network
        net.backend.sgd(net.parameters, net.gradients, self._moments["velocity"], rates)


class Adam(Optimiser):
    """Adam (Kingma & Ba 2015, Algorithm 1), bias correction with beta^t as published."""

    moments = ("m", "v")

    def __init__(
        self,
        network: Network,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(network, lr)
        _require("beta1", beta1, below=1.0)
        _require("beta2", beta2, below=1.0)
        _require("eps", eps)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _advance(self) -> tuple[float, float]:
        lr = self.lr(self.t)
        self.t += 1
        # The moments are stored as m / (1 - beta1) and v / (1 - beta2): [adam.1]. Those factors
        # and the bias corrections are folded into two numbers: [adam.2], [adam.3].
        root = math.sqrt((1.0 - self.beta2**self.t) / (1.0 - self.beta2))
        return lr * (1.0 - self.beta1) / (1.0 - self.beta1**self.t) * root, self.eps * root

    def _update(self, rates: Numbers) -> None:
        net = self.network
        net.backend.adam(
            net.parameters,
            net.gradients,
            self._moments["m"],
            self._moments["v"],
            self.beta1,
            self.beta2,
            rates,
        )
