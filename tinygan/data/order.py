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
        # The orders of as many epochs as one step can touch: epoch e is in row e % rows.
        rows = 2 + (k - 1) // self.batches_per_epoch
        self._orders: Array = None if replacement else noise.backend.empty((rows, n), "int64")
        self._epochs = [-1] * rows

    def __call__(self) -> Array:
        return self._with_replacement() if self.replacement else self._shuffled()

    def _with_replacement(self) -> Array:
        return self.noise.integers("minibatch", self.m, self.n)

    def _shuffled(self) -> Array:
        sub = max(self.noise.sub, 1)  # the place within the step; which step it is, `_start` asks
        backend = self.noise.backend
        at = backend.numbers(1, lambda: (self._start(max(self.noise.step, 1), sub),))
        return backend.window(self._orders.reshape(-1), at, self.m)

    def _start(self, step: int, sub: int) -> int:
        """Where in `_orders` the minibatch stands, after drawing the order of a new epoch."""
        epoch, batch = divmod((step - 1) * self.k + sub - 1, self.batches_per_epoch)
        row = epoch % len(self._epochs)
        if self._epochs[row] != epoch:
            self._orders[row] = self.noise.at(step=epoch).permutation("epoch", self.n)
            self._epochs[row] = epoch
        return row * self.n + batch * self.m
