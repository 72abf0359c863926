"""Dropout (Srivastava et al. 2014, section 10), scaled at training time.

Derivation: docs/dropout.md.
"""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import PiecewiseLinear


class Dropout(PiecewiseLinear):
    """In training y = x·mask / keep; in evaluation y = x.

    A mask costs 8 random bits an element, so `keep` is rounded to q/256 and the scale is 256/q:
    the expectation of y stays exactly x. The mask is a function of (seed, place, step, sub).
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        if not 1 / 256 <= keep <= 1:
            raise OptionError(f"Dropout keeps a share in [1/256, 1] of its inputs, not {keep}")
        self.keep, self.q = keep, round(256 * keep)

    def _is_identity(self, cache: Cache) -> bool:
        return not cache.train or self.q == 256

    def needs(self, cache: Cache) -> str:
        return "xy" if self._is_identity(cache) else ""

    def forward(self, x: Array, cache: Cache) -> Array:
        if self._is_identity(cache):
            return x
        words = cache.noise.words(f"{cache.path}/mask", (x.size + 3) // 4)
        factor, y = cache.like("factor", x), cache.like("y", x)
        cache.backend.dropout(x, words, self.q, factor, out=y)  # [dropout.1]
        cache.keep("factor", factor)
        return y

    def transposed(self, a: Array, cache: Cache, name: str) -> Array:
        if self._is_identity(cache):
            return a
        factor = cache.kept("factor")
        out = cache.like(name, factor)
        return cache.backend.multiply(a, factor, out=out)  # [dropout.2]

    def jvp(self, t: Array, cache: Cache) -> Array:
        return self.transposed(t, cache, "ty")  # J is diagonal

    def __repr__(self) -> str:
        return f"Dropout(keep {self.keep:g})"
