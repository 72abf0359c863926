"""Flatten, Reshape and Pack: the same numbers, seen in another shape."""

from __future__ import annotations

import math

from tinygan.backend import Array
from tinygan.errors import ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import PiecewiseLinear, Shape, require_sizes


class Reshape(PiecewiseLinear):
    """(N, ...) -> (N, *shape) in C order; its Jacobian is the identity: [shape.1]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        require_sizes(self, **{f"axis {i}": size for i, size in enumerate(shape)})
        self.shape = shape

    def output_shape(self, shape: Shape) -> Shape:
        count = math.prod(self.shape)
        self.expect(math.prod(shape) == count, f"{count} numbers a sample", shape)
        return self.shape

    def forward(self, x: Array, cache: Cache) -> Array:
        cache.keep("shape_of", x)
        return _reshaped(x, (len(x), *self.shape), cache, "x")

    def transposed(self, dy: Array, cache: Cache, name: str) -> Array:
        """dy in x's shape and in x's order in memory, so that the layers before see one order."""
        x = cache.kept("shape_of")
        dx = _reshaped(dy, x.shape, cache, name)
        if x.flags.c_contiguous:
            return dx
        return cache.backend.copy(dx, out=cache.like(name, x))

    def jvp(self, t: Array, cache: Cache) -> Array:
        return _reshaped(t, (len(t), *self.shape), cache, "t")

    def __repr__(self) -> str:
        return f"Reshape{self.shape}"


class Flatten(Reshape):
    """(N, H, W, C) -> (N, H·W·C)."""

    def output_shape(self, shape: Shape) -> Shape:
        self.shape = (math.prod(shape),)
        return self.shape

    def __repr__(self) -> str:
        return "Flatten"


class Pack(PiecewiseLinear):
    """(N, ..., C) -> (N/m, ..., m·C): m samples that follow one another become one, for PacGAN.

    Lin et al. 2018: what D then judges is whether all of them are real. The numbers are moved,
    not changed: the Jacobian is a permutation [modes.4].
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        require_sizes(self, m=m)
        self.m = self.pack = m

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(len(shape) >= 1, "(N, ..., C)", shape)
        return (*shape[:-1], self.m * shape[-1])

    def forward(self, x: Array, cache: Cache) -> Array:
        if len(x) % self.m:
            raise ShapeError(f"{self} expects a number of samples that {self.m} divides: {len(x)}")
        cache.keep("shape_of", x)
        return self._packed(x, cache, "y")

    def _packed(self, x: Array, cache: Cache, name: str) -> Array:
        m, c = self.m, x.shape[-1]
        shape = (len(x) // m, *x.shape[1:-1], m * c)
        y = cache.images(name, shape) if x.ndim == 4 else cache.new(name, shape)
        for i in range(m):
            y[..., i * c : (i + 1) * c] = x[i::m]
        return y

    def transposed(self, dy: Array, cache: Cache, name: str) -> Array:
        x = cache.kept("shape_of")
        dx, c = cache.like(name, x), x.shape[-1]
        for i in range(self.m):
            dx[i :: self.m] = dy[..., i * c : (i + 1) * c]
        return dx

    def jvp(self, t: Array, cache: Cache) -> Array:
        return self._packed(t, cache, "ty")

    def __repr__(self) -> str:
        return f"Pack({self.m})"


def _reshaped(a: Array, shape: tuple[int, ...], cache: Cache, name: str) -> Array:
    """a in another shape: a view, after a copy if a does not lie in C order."""
    if not a.flags.c_contiguous:
        a = cache.backend.copy(a, out=cache.new(name, a.shape))
    return a.reshape(shape)
