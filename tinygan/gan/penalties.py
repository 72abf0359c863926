"""Penalties on D's slope, exact and without automatic differentiation. See docs/penalties.md.

A penalty E φ(|∇D|) contains a derivative; its own gradient by D's parameters is one jvp of D and
the reverse of that jvp. Objective, penalty and constraint (constraints.py) are separate axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.nn.cache import Cache
from tinygan.nn.network import Network

LEAST = 1e-12  # a norm below it is not divided by: u is then next to nothing, as the slope is


def two_sided(r: Array, cache: Cache) -> tuple[Array, Array]:
    """φ = (r - 1)² and φ'/r: Gulrajani et al. 2017, eq. 3 [gp.5]."""
    excess = r - 1.0
    return excess * excess, 2.0 * excess / cache.backend.xp.maximum(r, LEAST)


def one_sided(r: Array, cache: Cache) -> tuple[Array, Array]:
    """φ = max(0, r - 1)² and φ'/r: Petzka et al. 2018 [gp.6]."""
    xp = cache.backend.xp
    excess = xp.maximum(r - 1.0, 0.0)
    return excess * excess, 2.0 * excess / xp.maximum(r, LEAST)


def half_square(r: Array, cache: Cache) -> tuple[Array, Array]:
    """φ = r²/2 and φ'/r = 1: Mescheder et al. 2018, eq. 9 and 10 [gp.7]."""
    return 0.5 * r * r, 0.0 * r + 1.0


class Penalty(NamedTuple):
    """weight · E φ(|∇D|), D's slope at the points `at`: "reals", "fakes" or "between" them.

    phi(norms, cache) -> (φ(norms), φ'(norms) / norms), of norms (N,).
    """

    weight: float
    at: str
    phi: Callable[[Array, Cache], tuple[Array, Array]]

    def add_gradient(self, D: Network, x: Array, fakes: Array, cache: Cache) -> Array:
        """Add the penalty's gradient to D.gradients; return its value, a 0-d array.

        `cache` is a call site of D, on which its labels, if it has any, are set. eps is drawn from
        the cache's noise.
        """
        own = cache["penalty"]
        points = {"reals": x, "fakes": fakes}.get(self.at)
        if points is None:
            points = between(x, fakes, pack_size(D), cache)
        logits = D.forward(points, cache)
        one = own.new("one", logits.shape)
        one.fill(1)
        g = D.backward(one, cache, param_grads=False)  # g = Jᵀ1, each sample's slope  [gp.2]
        phi, slope = self.phi(norms(g, len(logits), own), own)
        factor = per_sample(slope * (self.weight / len(logits)), g, own)
        u = own.like("u", g)
        cache.backend.xp.multiply(g, factor, out=u)  # [gp.3], numbers from here on
        D.jvp(u, cache)
        D.jvp_backward(None, one, cache)  # the gradient of 1ᵀJu by D's parameters  [gp.4]
        return self.weight * phi.mean()


PENALTIES = {
    "gp": ("between", two_sided),
    "gp-one-sided": ("between", one_sided),
    "r1": ("reals", half_square),
    "r2": ("fakes", half_square),
}


def make_penalty(name: str, weight: float) -> Penalty:
    """The penalty called `name`, one of `PENALTIES`; WGAN-GP's weight is 10, R1's often 10 or 1."""
    if name not in PENALTIES:
        *known, last = PENALTIES
        raise OptionError(f"unknown penalty {name!r}: choose {', '.join(known)} or {last}")
    if not 0.0 < weight < math.inf:
        raise OptionError(f"a penalty's weight is a number above 0, got {weight}")
    return Penalty(weight, *PENALTIES[name])


def check_penalty(D: Network) -> None:
    """Raise OptionError if D's slope at one sample depends on the others of the batch: [bn.6]."""
    for path, layer in D.layers():
        if layer.couples_samples:
            raise OptionError(
                f"{D.name} layer {path.rstrip('.')} {layer} couples the samples of a batch, so a "
                "penalty on each sample's own slope has no meaning: put LayerNorm in its place "
                "(--d-norm layer)"
            )


# ---- points, norms ---------------------------------------------------------------------------


def between(x: Array, fakes: Array, pack: int, cache: Cache) -> Array:
    """x_hat = eps x + (1 - eps) fakes, with an eps ~ U(0, 1) of each sample's own: [gp.8].

    To a D that judges packs the pack is the sample: its members share one eps.
    """
    own = cache["penalty"]
    x_hat = own.like("x_hat", fakes)  # in memory as G left them
    eps = cache.noise.uniform(f"{cache.path}/between", (len(x) // pack,), 0.0, 1.0)
    cache.backend.xp.subtract(x, fakes, out=x_hat)
    x_hat *= per_sample(eps, x_hat, own)
    x_hat += fakes
    return x_hat


def norms(g: Array, n: int, own: Cache) -> Array:
    """|g| of each of D's n answers (n,): of a sample, or of a pack of them: [gp.2]."""
    squares = own.backend.multiply(g, g, out=own.like("squares", g))
    each = squares.sum(axis=tuple(range(1, g.ndim)))
    return own.backend.xp.sqrt(each.reshape(n, -1).sum(axis=1))


def per_sample(values: Array, like: Array, own: Cache) -> Array:
    """One number for each answer (n,) -> one for each sample, (N, 1, ..., 1)."""
    each = own.new("each", (len(like), *[1] * (like.ndim - 1)))
    each.reshape(len(values), -1)[...] = values[:, None]
    return each


def pack_size(D: Network) -> int:
    """How many samples make one answer of D."""
    return math.prod(layer.pack for _, layer in D.layers())
