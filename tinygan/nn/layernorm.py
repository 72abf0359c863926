"""Layer normalisation (Ba, Kiros & Hinton 2016): each sample by itself. See docs/layernorm.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.nn.cache import Cache
from tinygan.nn.initialisers import ones, zeros
from tinygan.nn.layer import Layer, Shape, View, require_sizes


class LayerNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + eps) + beta: x (N, ..., C), gamma and beta (C,).

    Mean and (biased) variance are each sample's own, over all of its axes: no sample sees another,
    training and evaluation are the same, and a gradient penalty has a meaning. Takes the place of a
    BatchNorm(C).
    """

    gamma, beta, dgamma, dbeta = View(), View(), View(), View()

    def __init__(self, n: int, eps: float = 1e-5) -> None:
        super().__init__()
        require_sizes(self, n=n)
        if not eps >= 0.0:
            raise OptionError(f"LayerNorm's eps is not negative: got {eps}")
        self.n, self.eps = n, eps
        self.parameters = {"gamma": ((n,), ones), "beta": ((n,), zeros)}

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(shape[-1:] == (self.n,), f"(N, ..., {self.n})", shape)
        return shape

    def needs(self, cache: Cache) -> str:
        return ""

    def forward(self, x: Array, cache: Cache) -> Array:
        xp, y, x_hat = cache.backend.xp, cache.like("y", x), cache.like("x_hat", x)
        xp.subtract(x, _mean(x), out=x_hat)
        var = _mean(xp.multiply(x_hat, x_hat, out=y))
        inv_std = 1.0 / xp.sqrt(var + self.eps)
        x_hat *= inv_std
        xp.multiply(x_hat, self.gamma, out=y)
        y += self.beta  # [ln.1]
        cache.keep("x_hat", x_hat)
        cache.keep("inv_std", inv_std)
        return y

    def _project(self, a: Array, cache: Cache, out: Array) -> Array:
        """out = P a = (a - mean(a) - x_hat mean(x_hat a)) / std, the derivative of x_hat: [ln.2].

        P is symmetric, so it is the jvp of x_hat and its vjp.
        """
        xp, x_hat = cache.backend.xp, cache.kept("x_hat")
        xp.multiply(x_hat, a, out=out)
        xp.multiply(x_hat, -_mean(out), out=out)
        out += a
        out -= _mean(a)
        out *= cache.kept("inv_std")
        return out

    def _scaled(self, dy: Array, cache: Cache) -> Array:
        """gamma dy, the gradient on x_hat."""
        out = cache.like("dx_hat", cache.kept("x_hat"))
        return cache.backend.xp.multiply(dy, self.gamma, out=out)

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        x_hat, rows = cache.kept("x_hat"), cache.backend.rows
        dx = cache.like("dx", x_hat)
        if param_grads:
            dx[...] = dy  # in x_hat's order in memory
            cache.backend.add_column_sums(rows(dx), out=self.dbeta)
            dx *= x_hat
            cache.backend.add_column_sums(rows(dx), out=self.dgamma)  # [ln.3]
        return self._project(self._scaled(dy, cache), cache, out=dx)

    def jvp(self, t: Array, cache: Cache) -> Array:
        x_hat = cache.kept("x_hat")
        t_hat, ty = cache.like("t_hat", x_hat), cache.like("ty", x_hat)
        cache.keep("along", _mean(cache.backend.xp.multiply(x_hat, t, out=ty)))
        cache.keep("t_hat", self._project(t, cache, out=t_hat))
        return cache.backend.xp.multiply(t_hat, self.gamma, out=ty)  # [ln.4]

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        xp, x_hat, t_hat = cache.backend.xp, cache.kept("x_hat"), cache.kept("t_hat")
        dt, bend, work = (cache.like(name, x_hat) for name in ("dt", "bend", "work"))
        if param_grads:  # ty = gamma t_hat
            xp.multiply(dty, t_hat, out=work)
            cache.backend.add_column_sums(cache.backend.rows(work), out=self.dgamma)
        a = self._scaled(dty, cache)
        of_x, of_t = _mean(xp.multiply(a, x_hat, out=work)), _mean(xp.multiply(a, t_hat, out=work))
        self._project(a, cache, out=dt)
        # Mean and deviation move with x, and t_hat with them: three terms of one form  [ln.5]
        xp.multiply(dt, cache.kept("along"), out=bend)
        bend += xp.multiply(t_hat, of_x, out=work)
        bend += xp.multiply(x_hat, of_t, out=work)
        bend *= -cache.kept("inv_std")
        if dy is not None:
            bend += self.backward(dy, cache, param_grads)
        return bend, dt

    def __repr__(self) -> str:
        return f"LayerNorm({self.n})"


def _mean(a: Array) -> Array:
    """Over each sample's entries: (N, ..., C) -> (N, 1, ..., 1)."""
    return a.mean(axis=tuple(range(1, a.ndim)), keepdims=True)
