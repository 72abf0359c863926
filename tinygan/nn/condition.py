"""The Condition layer: labels join what flows through. Derivation: docs/conditional.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.initialisers import normal
from tinygan.nn.layer import Initialiser, Layer, Shape, View, require_sizes

standard_normal = normal(1.0)  # as large as the entries of z, which it joins


class Condition(Layer):
    """y = [x, e(label)] along the last axis; in images every number of e is a constant plane.

    (N, F) -> (N, F + width) and (N, H, W, C) -> (N, H, W, C + width). e(label) is one-hot, of
    width `classes`, or the label's row of a learned table W (classes, embedding). The labels,
    integers (N,) in [0, classes), are read from `cache.condition`: they are no input that could
    have a gradient. Mirza & Osindero 2014.
    """

    W, dW = View(), View()

    def __init__(
        self, classes: int, embedding: int | None = None, W: Initialiser = standard_normal
    ) -> None:
        super().__init__()
        require_sizes(self, classes=classes)
        if embedding is not None:
            require_sizes(self, embedding=embedding)
        self.classes, self.embedding = classes, embedding
        self.width = classes if embedding is None else embedding
        if embedding is not None:
            self.parameters["W"] = ((classes, embedding), W)

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(len(shape) >= 1, "(N, ..., C)", shape)
        return (*shape[:-1], shape[-1] + self.width)

    def forward(self, x: Array, cache: Cache) -> Array:
        cache.keep("x", x)
        return self._joined(x, self._embed(self._one_hot(len(x), cache), cache), cache, "y")

    def _one_hot(self, n: int, cache: Cache) -> Array:
        """(N, classes): 1 where the column is the label."""
        labels, xp = cache.condition, cache.backend.xp
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise ShapeError(
                f"{self} expects {n} labels as integers ({n},), got {labels.dtype} {labels.shape}"
            )
        one_hot = cache.new("one_hot", (n, self.classes))
        one_hot[...] = labels[:, None] == xp.arange(self.classes)  # [cond.3]
        if cache.check and not bool((one_hot.sum(axis=1) == 1).all()):
            raise ShapeError(f"{self} got a label outside 0 ... {self.classes - 1}")
        cache.keep("one_hot", one_hot)
        return one_hot

    def _embed(self, one_hot: Array, cache: Cache) -> Array:
        """e (N, width)"""
        if self.embedding is None:
            return one_hot
        return cache.backend.matmul(one_hot, self.W, out=cache.new("e", (len(one_hot), self.width)))

    def _joined(self, x: Array, e: Array | None, cache: Cache, name: str) -> Array:
        """[x, e], e the same at every pixel; zeros for e=None."""
        channels, shape = x.shape[-1], (*x.shape[:-1], x.shape[-1] + self.width)
        y = cache.images(name, shape) if x.ndim == 4 else cache.new(name, shape)
        y[..., :channels] = x  # [cond.2]
        spread = (len(x), *[1] * (x.ndim - 2), self.width)
        y[..., channels:] = 0 if e is None else e.reshape(spread)
        return y

    def _first(self, dy: Array, cache: Cache, name: str) -> Array:
        """The part of dy that belongs to x."""
        x = cache.kept("x")
        dx = cache.like(name, x)
        dx[...] = dy[..., : x.shape[-1]]  # [cond.4]
        return dx

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        if param_grads and self.embedding is not None:
            self._add_gradient(dy, cache)
        return self._first(dy, cache, "dx") if input_grad else None

    def _add_gradient(self, dy: Array, cache: Cache) -> None:
        one_hot, de = cache.kept("one_hot"), cache.new("de", (len(dy), self.width))
        pixels = tuple(range(1, dy.ndim - 1))
        cache.backend.xp.sum(dy[..., -self.width :], axis=pixels, out=de)
        cache.backend.matmul_add(one_hot.T, de, out=self.dW)  # dW += one_hotᵀ de  [cond.5]

    def jvp(self, t: Array, cache: Cache) -> Array:
        return self._joined(t, None, cache, "ty")  # a label does not move

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dx = None if dy is None else self.backward(dy, cache, param_grads)
        return dx, self._first(dty, cache, "dt")

    def __repr__(self) -> str:
        kind = "one-hot" if self.embedding is None else f"embedding {self.embedding}"
        return f"Condition({self.classes} classes, {kind})"
