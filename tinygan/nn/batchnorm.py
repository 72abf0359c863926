"""Batch normalisation (Ioffe & Szegedy 2015, Algorithms 1 and 2). Derivation: docs/batchnorm.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.nn.cache import Cache
from tinygan.nn.initialisers import ones, zeros
from tinygan.nn.layer import Layer, Shape, View, require_sizes


class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + eps) + beta over the last axis: x (N, ..., C).

    In training mean and (biased) variance are the batch's; in evaluation the running ones.
    `momentum` follows Keras: running = momentum·running + (1 - momentum)·batch, so PyTorch's
    momentum is 1 minus ours. Forward never moves them: `update_statistics(cache)` does.
    """

    couples_samples = True
    gamma, beta, dgamma, dbeta = View(), View(), View(), View()
    running_mean, running_var = View(), View()

    def __init__(self, n: int, momentum: float = 0.9, eps: float = 1e-5) -> None:
        super().__init__()
        require_sizes(self, n=n)
        if not (0.0 <= momentum <= 1.0 and eps >= 0.0):
            raise OptionError(
                f"BatchNorm: momentum lies in [0, 1] and eps is not negative, got {momentum}, {eps}"
            )
        self.n, self.momentum, self.eps = n, momentum, eps
        self.parameters = {"gamma": ((n,), ones), "beta": ((n,), zeros)}
        self.statistics = {"running_mean": ((n,), 0.0), "running_var": ((n,), 1.0)}

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(shape[-1:] == (self.n,), f"(N, ..., {self.n})", shape)
        return shape

    def needs(self, cache: Cache) -> str:
        return ""  # x_hat says it all

    def forward(self, x: Array, cache: Cache) -> Array:
        y, x_hat, rows = cache.like("y", x), cache.like("x_hat", x), cache.backend.rows
        if cache.train:
            stats = cache.new("stats", (3, self.n))
            cache.backend.batch_norm(
                rows(x, like=x_hat), self.gamma, self.beta, self.eps, rows(x_hat), rows(y), stats
            )  # [bn.1], over N, H and W alike  [bn.7]
            cache.keep("stats", stats)
        else:  # constants from training instead of the batch's own  [bn.3]
            xp, stats = cache.backend.xp, cache.new("stats", (3, self.n))
            stats[0], stats[1] = self.running_mean, self.running_var
            xp.divide(1.0, xp.sqrt(self.running_var + self.eps), out=stats[2])
            xp.subtract(x, stats[0], out=x_hat)
            x_hat *= stats[2]
            xp.multiply(x_hat, self.gamma, out=y)
            y += self.beta
            cache.keep("stats", stats)
        cache.keep("x_hat", x_hat)
        return y

    def update_statistics(self, cache: Cache) -> None:
        cache.backend.move_statistics(
            self.running_mean, self.running_var, cache.kept("stats"), self.momentum
        )  # [bn.4]

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        x_hat, stats, rows = cache.kept("x_hat"), cache.kept("stats"), cache.backend.rows
        dx = cache.like("dx", x_hat)
        if not cache.train:
            return self._backward_evaluation(dy, cache, param_grads, out=dx)
        gradients = (self.dgamma, self.dbeta) if param_grads else None
        cache.backend.batch_norm_backward(
            rows(dy, like=x_hat), rows(x_hat), self.gamma, stats[2], rows(dx), gradients
        )  # [bn.2]
        return dx

    def _backward_evaluation(self, dy: Array, cache: Cache, param_grads: bool, out: Array) -> Array:
        if param_grads:
            rows = cache.backend.rows
            self.dgamma += rows(dy * cache.kept("x_hat")).sum(axis=0)
            self.dbeta += rows(dy).sum(axis=0)
        return cache.backend.xp.multiply(dy, self.gamma * cache.kept("stats")[2], out=out)

    def jvp(self, t: Array, cache: Cache) -> Array:
        scale, kept = self.gamma * cache.kept("stats")[2], cache.kept("x_hat")
        if not cache.train:
            return t * scale
        x_hat, t = cache.backend.rows(kept), cache.backend.rows(t, like=kept)
        # The batch's mean and variance move with t too  [bn.5]
        ty = t - t.mean(axis=0) - x_hat * (x_hat * t).mean(axis=0)
        out = cache.like("ty", kept)
        cache.backend.rows(out)[...] = ty * scale
        return out

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        raise TypeError(  # [bn.6]
            f"{self} couples the samples of a batch, so a per-sample gradient penalty through it "
            "has no meaning: take BatchNorm out of D (WGAN-GP uses LayerNorm there)"
        )

    def __repr__(self) -> str:
        return f"BatchNorm({self.n})"
