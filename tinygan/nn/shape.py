"""Flatten and Reshape: the same numbers in the same order, seen in another shape."""

from __future__ import annotations

import math

from tinygan.backend import Array
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, Shape


class Reshape(Layer):
    """(N, ...) -> (N, *shape) in C order; its Jacobian is the identity: [shape.1]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def output_shape(self, shape: Shape) -> Shape:
        count = math.prod(self.shape)
        self.expect(math.prod(shape) == count, f"{count} numbers a sample", shape)
        return self.shape

    def forward(self, x: Array, cache: Cache) -> Array:
        cache.keep("shape_of", x)
        return x.reshape(len(x), *self.shape)

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        return dy.reshape(cache.kept("shape_of").shape)

    def jvp(self, t: Array, cache: Cache) -> Array:
        return t.reshape(len(t), *self.shape)

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dx = None if dy is None else self.backward(dy, cache)
        return dx, self.backward(dty, cache)

    def __repr__(self) -> str:
        return f"Reshape{self.shape}"


class Flatten(Reshape):
    """(N, H, W, C) -> (N, H·W·C)."""

    def output_shape(self, shape: Shape) -> Shape:
        self.shape = (math.prod(shape),)
        return self.shape

    def __repr__(self) -> str:
        return "Flatten"
