"""Randomness as a function of (seed, purpose, step, sub, index), the same on every backend.

There is no generator state: a draw is looked up, not advanced to. A resumed run needs no more
than its step, and nobody's draw can shift another's.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache

from tinygan.backend import Array, Backend
from tinygan.errors import OptionError


@cache
def _purpose_word(purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


class Noise:
    """Draws for one run; `step` and `sub` say where in the run the next draw stands.

    `sub` numbers the discriminator's updates within a step from 1; 0 is everything else.
    `index` runs over an array in C order. Integers and bits are equal on all backends; normals
    are computed in float64 from those bits and agree to its rounding (then rounded to the
    backend's dtype).
    """

    def __init__(self, seed: int, backend: Backend, step: int = 0, sub: int = 0) -> None:
        if not 0 <= seed < 1 << 64:
            raise OptionError(f"seed must lie in [0, 2^64), got {seed}")
        self.seed, self.backend, self.step, self.sub = seed, backend, step, sub

    def at(self, step: int, sub: int = 0) -> Noise:
        """The same noise looked up at another place."""
        return Noise(self.seed, self.backend, step, sub)

    def words(self, purpose: str, n: int) -> Array:
        """n independent uint32 words."""
        key = (self.seed, _purpose_word(purpose))
        step = self.backend.numbers(1, lambda: (self.step,))
        return self.backend.philox(key, (0, self.sub, 0, 0), n, step)  # [noise.1]

    def unit(self, purpose: str, n: int) -> Array:
        """n numbers uniform in the open interval (0, 1), float64: (word + 1/2) / 2^32."""
        return self.backend.uniforms(
            self.words(purpose, n), 0.0, 1.0, out=self.backend.empty((n,), "float64")
        )

    def uniform(self, purpose: str, shape: tuple[int, ...], low: float, high: float) -> Array:
        """Uniform in [low, high], in the backend's dtype: low + (high - low) u."""
        words = self.words(purpose, math.prod(shape))
        return self.backend.uniforms(words, low, high, out=self.backend.empty(shape))  # [noise.2]

    def normal(self, purpose: str, shape: tuple[int, ...], std: float = 1.0) -> Array:
        """N(0, std²) by Box-Muller (1958) on the pairs of words (2i, 2i + 1)."""
        n = math.prod(shape)
        words = self.words(purpose, n + n % 2)
        return self.backend.normals(words, std, out=self.backend.empty(shape))  # [noise.3]

    def integers(self, purpose: str, n: int, high: int) -> Array:
        """n integers uniform in [0, high), int64: word·high >> 32, for high up to 2^31."""
        out = self.backend.empty((n,), "int64")
        return self.backend.integers(self.words(purpose, n), high, out)  # [noise.4]

    def permutation(self, purpose: str, n: int) -> Array:
        """A uniformly random order of 0 … n - 1, int64: the order that sorts n 64-bit draws."""
        return self.words(purpose, 2 * n).view("uint64").argsort(kind="stable")
