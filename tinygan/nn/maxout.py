"""Maxout (Goodfellow et al. 2013, eq. 2). Derivation: docs/maxout.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.nn.cache import Cache
from tinygan.nn.dense import Dense
from tinygan.nn.initialisers import glorot_uniform, zeros
from tinygan.nn.layer import Initialiser, Layer, Shape, require_sizes


class Maxout(Layer):
    """y[n, u] = max over pieces p of (x W + b)[n, p, u]: x (N, n_in), y (N, units).

    The affine part is a Dense of pieces·units outputs, all units of piece 0 first.
    """

    def __init__(
        self,
        n_in: int,
        units: int,
        pieces: int,
        W: Initialiser = glorot_uniform,
        b: Initialiser = zeros,
    ) -> None:
        super().__init__()
        require_sizes(self, n_in=n_in, units=units, pieces=pieces)
        self.units, self.pieces = units, pieces
        self.dense = Dense(n_in, pieces * units, W, b)

    def children(self) -> list[tuple[str, Layer]]:
        return [("dense", self.dense)]

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(shape == (self.dense.n_in,), f"(N, {self.dense.n_in})", shape)
        return (self.units,)

    def _by_piece(self, h: Array) -> Array:
        return h.reshape(len(h), self.pieces, self.units)

    def forward(self, x: Array, cache: Cache) -> Array:
        h = self._by_piece(self.dense.forward(x, cache["dense"]))
        y = cache.backend.maxout(h, out=cache.new("y", (len(x), self.units)))  # [maxout.1]
        cache.keep("h", h)
        cache.keep("y", y)
        return y

    def _route(self, dy: Array, cache: Cache, name: str) -> Array:
        """dy, handed to the piece that won; the others get zero."""
        h, y = cache.kept("h"), cache.kept("y")
        dh = cache.backend.maxout_backward(dy, h, y, out=cache.new(name, h.shape))  # [maxout.2]
        return dh.reshape(len(dy), -1)

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        dh = self._route(dy, cache, "dh")
        return self.dense.backward(dh, cache["dense"], param_grads, input_grad)

    def jvp(self, t: Array, cache: Cache) -> Array:
        th = self._by_piece(self.dense.jvp(t, cache["dense"]))
        one = cache.backend.zeros((len(t), self.units)) + 1
        won = self._route(one, cache, "won")
        ty = cache.new("ty", (len(t), self.units))
        return cache.backend.xp.sum(th * self._by_piece(won), axis=1, out=ty)  # [maxout.3]

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dh = None if dy is None else self._route(dy, cache, "dh")
        dth = self._route(dty, cache, "dth")
        return self.dense.jvp_backward(dh, dth, cache["dense"], param_grads)

    def __repr__(self) -> str:
        return f"Maxout({self.dense.n_in} -> {self.units}, {self.pieces} pieces)"
