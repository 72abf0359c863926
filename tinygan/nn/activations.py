"""Elementwise activations: f, f' and, for the reverse of the jvp, f''.

Derivation: docs/activations.md.
"""

from __future__ import annotations

import math

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, PiecewiseLinear


class LeakyReLU(PiecewiseLinear):
    """y = x where x > 0, slope·x elsewhere. Piecewise linear: f'' = 0."""

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        if not math.isfinite(slope):
            raise OptionError(f"LeakyReLU's slope is a finite number, not {slope}")
        self.slope = slope + 0.0  # -0.0, too, leaves signs as they are
        # Where the signs of x are: in y, which the next layer often keeps, if the slope is not < 0.
        self._signs_in = "x" if self.slope < 0.0 else "y"

    def needs(self, cache: Cache) -> str:
        return self._signs_in

    def forward(self, x: Array, cache: Cache) -> Array:
        y = cache.backend.leaky(x, self.slope, out=cache.like("y", x))
        cache.keep("signs", x if self._signs_in == "x" else y)  # [act.4], at slope 0 ReLU [act.5]
        return y

    def transposed(self, a: Array, cache: Cache, name: str) -> Array:
        """a·f'(x); f' is found again, since keeping it would cost more memory than time."""
        signs = cache.kept("signs")
        return cache.backend.leaky_backward(a, signs, self.slope, out=cache.like(name, signs))

    def jvp(self, t: Array, cache: Cache) -> Array:
        return self.transposed(t, cache, "ty")  # J is diagonal

    def __repr__(self) -> str:
        return f"LeakyReLU({self.slope:g})"


class ReLU(LeakyReLU):
    """y = max(x, 0): the leaky one without its leak."""

    def __init__(self) -> None:
        super().__init__(slope=0.0)

    def __repr__(self) -> str:
        return "ReLU"


class Smooth(Layer):
    """An activation with f'' ≠ 0 whose derivatives are functions of its output y."""

    def f(self, x: Array, cache: Cache, out: Array) -> Array:
        """out = f(x)"""
        raise NotImplementedError

    def times_df(self, dy: Array, y: Array, cache: Cache, out: Array) -> Array:
        """out = dy·f'(x)"""
        raise NotImplementedError

    def d2f(self, y: Array, cache: Cache) -> Array:
        """f''(x)"""
        raise NotImplementedError

    def needs(self, cache: Cache) -> str:
        return "y"

    def forward(self, x: Array, cache: Cache) -> Array:
        y = self.f(x, cache, out=cache.like("y", x))
        cache.keep("y", y)
        return y

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        y = cache.kept("y")
        return self.times_df(dy, y, cache, out=cache.like("dx", y))  # [act.1]

    def jvp(self, t: Array, cache: Cache) -> Array:
        cache.keep("t", t)
        y = cache.kept("y")
        return self.times_df(t, y, cache, out=cache.like("ty", y))  # [act.2]

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        y = cache.kept("y")
        dt = self.times_df(dty, y, cache, out=cache.like("dt", y))
        dx = dty * cache.kept("t") * self.d2f(y, cache)  # ty = t f'(x) bends with x  [act.3]
        if dy is not None:
            dx += self.backward(dy, cache)
        return dx, dt


class Tanh(Smooth):
    """y = tanh(x), f' = 1 - y², f'' = -2y(1 - y²)."""

    reach = (-1.0, 1.0)

    def f(self, x: Array, cache: Cache, out: Array) -> Array:
        return cache.backend.xp.tanh(x, out=out)

    def times_df(self, dy: Array, y: Array, cache: Cache, out: Array) -> Array:
        return cache.backend.tanh_backward(dy, y, out=out)

    def d2f(self, y: Array, cache: Cache) -> Array:
        return -2.0 * y * (1.0 - y * y)  # [act.6]


class Sigmoid(Smooth):
    """y = 1 / (1 + exp(-x)), f' = y(1 - y), f'' = y(1 - y)(1 - 2y)."""

    reach = (0.0, 1.0)

    def f(self, x: Array, cache: Cache, out: Array) -> Array:
        return cache.backend.sigmoid(x, out=out)

    def times_df(self, dy: Array, y: Array, cache: Cache, out: Array) -> Array:
        return cache.backend.sigmoid_backward(dy, y, out=out)

    def d2f(self, y: Array, cache: Cache) -> Array:
        return y * (1.0 - y) * (1.0 - 2.0 * y)  # [act.7]


class Softplus(Smooth):
    """y = log(1 + exp(x)), f' = sigmoid(x) = 1 - exp(-y), f'' = f'(1 - f')."""

    def f(self, x: Array, cache: Cache, out: Array) -> Array:
        xp = cache.backend.xp  # log1p(exp(-|x|)) + max(x, 0): no exponential overflows
        xp.abs(x, out=out)
        xp.negative(out, out=out)
        xp.exp(out, out=out)
        xp.log1p(out, out=out)
        out += xp.maximum(x, 0.0)
        return out

    def times_df(self, dy: Array, y: Array, cache: Cache, out: Array) -> Array:
        xp = cache.backend.xp
        xp.negative(y, out=out)
        xp.expm1(out, out=out)  # 1 - exp(-y), to full precision also where y is tiny
        xp.negative(out, out=out)
        return xp.multiply(dy, out, out=out)

    def d2f(self, y: Array, cache: Cache) -> Array:
        xp = cache.backend.xp
        return -xp.expm1(-y) * xp.exp(-y)  # [act.8]
