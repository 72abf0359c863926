"""The dense layer. Derivation: docs/dense.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.nn.cache import Cache
from tinygan.nn.initialisers import glorot_uniform, zeros
from tinygan.nn.layer import Initialiser, Layer, Shape, View, require_sizes


class Dense(Layer):
    """y = x W + b: x (N, n_in), W (n_in, n_out), b (n_out,), y (N, n_out)."""

    W, b, dW, db = View(), View(), View(), View()

    def __init__(
        self,
        n_in: int,
        n_out: int,
        W: Initialiser = glorot_uniform,
        b: Initialiser | None = zeros,
    ) -> None:
        """`W` and `b` are initialisers; `b=None` leaves the bias out."""
        super().__init__()
        require_sizes(self, n_in=n_in, n_out=n_out)
        self.n_in, self.n_out, self.bias = n_in, n_out, b is not None
        self.parameters["W"] = ((n_in, n_out), W)
        if b is not None:
            self.parameters["b"] = ((n_out,), b)

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(shape == (self.n_in,), f"(N, {self.n_in})", shape)
        return (self.n_out,)

    def needs(self, cache: Cache) -> str:
        return "x"

    def forward(self, x: Array, cache: Cache) -> Array:
        cache.keep("x", x)
        y = cache.new("y", (len(x), self.n_out))
        if not self.bias:
            return cache.backend.matmul(x, self.W, out=y)
        return cache.backend.affine(x, self.W, self.b, out=y)  # y = x W + b  [dense.1]

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        if param_grads:
            self._add_gradients(cache.kept("x"), dy, cache)
        if not input_grad:
            return None
        dx = cache.new("dx", (len(dy), self.n_in))
        return cache.backend.matmul(dy, self.W.T, out=dx)  # dx = dy Wᵀ  [dense.3]

    def _add_gradients(self, x: Array, dy: Array, cache: Cache) -> None:
        cache.backend.matmul_add(x.T, dy, out=self.dW)  # dW += xᵀ dy  [dense.2]
        if self.bias:
            cache.backend.add_column_sums(dy, out=self.db)  # db += 1ᵀ dy

    def jvp(self, t: Array, cache: Cache) -> Array:
        cache.keep("t", t)
        ty = cache.new("ty", (len(t), self.n_out))
        return cache.backend.matmul(t, self.W, out=ty)  # ty = t W  [dense.4]

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dx = None if dy is None else self.backward(dy, cache, param_grads)
        if param_grads:  # ty = t W depends on W as y does, and not on x or b  [dense.5]
            cache.backend.matmul_add(cache.kept("t").T, dty, out=self.dW)
        dt = cache.new("dt", (len(dty), self.n_in))
        return dx, cache.backend.matmul(dty, self.W.T, out=dt)

    def __repr__(self) -> str:
        return f"Dense({self.n_in} -> {self.n_out})"
