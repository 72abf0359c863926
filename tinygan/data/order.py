"""Which examples come when: indices of minibatches as a function of the step."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import DataError
from tinygan.noise import Noise


class Order:
    """Calling it gives the indices (m,) of the minibatch that belongs to where `noise` stands.

    with replacement:  every example of a batch is drawn from all
    else:              epochs in a shuffled order; the last incomplete minibatch is dropped

    `k` minibatches are drawn each step. Raises DataError for an m that n examples cannot fill.
    """

    def __init__(self, n: int, m: int, noise: Noise, k: int = 1, replacement: bool = False) -> None:
        if not 1 <= m <= n:
            raise DataError(f"a minibatch of {m} cannot be drawn from {n} examples")
        self.n, self.m, self.noise, self.k, self.replacement = n, m, noise, k, replacement
        self.batches_per_epoch = n // m
        self._epoch: tuple[int, Array] = (-1, None)

    def __call__(self) -> Array:
        return self._with_replacement() if self.replacement else self._shuffled()

    def _with_replacement(self) -> Array:
        return self.noise.integers("minibatch", self.m, self.n)

    def _shuffled(self) -> Array:
        step, sub = max(self.noise.step, 1), max(self.noise.sub, 1)  # from 0, before a run's first
        epoch, batch = divmod((step - 1) * self.k + sub - 1, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.noise.at(step=epoch).permutation("epoch", self.n))
        return self._epoch[1][batch * self.m : (batch + 1) * self.m]
