"""NumPy: OpenBLAS products, in-place ufuncs, and the few operations that a CPU does better its way.

Only what measured faster than the plain form of `interface.py` is here; the tests hold the two
equal.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from tinygan.backend.blas import make_gemm_add
from tinygan.backend.convolution import FEW, Convolution, DirectConvolution
from tinygan.backend.geometry import Geometry
from tinygan.backend.interface import Array, Backend
from tinygan.backend.row_convolution import RowConvolution
from tinygan.backend.spectral import Lifted, SpectralConvolution, spectral_is_faster

# Elements per block of an optimiser's update: the five arrays' blocks stay in a core's L2 cache.
BLOCK = 1 << 15


class NumpyBackend(Backend):
    """Arrays are numpy.ndarray; everything has happened when a call returns."""

    name = "numpy"
    # Axis 0 lies behind the two of space: a range of rows is then one matrix, ready for BLAS.
    image_axes = (1, 2, 0)

    def __init__(self, dtype: str = "float32", reason: str = "numpy, as asked") -> None:
        super().__init__(np, dtype)
        self._gemm_add = make_gemm_add()
        self.lifted = Lifted()
        self.device = platform.processor() or platform.machine()
        self.reason = reason

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        if dtype is None:
            dtype = self.dtype if np.issubdtype(np.asarray(array).dtype, np.floating) else None
        return np.array(array, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return np.array(array, order="C")  # memory order is a matter between layers

    def check(self, array: Any, what: str) -> None:
        if not isinstance(array, np.ndarray):
            kind = f"{type(array).__module__.split('.')[0]} {type(array).__name__}"
            raise TypeError(
                f"{what} must be a numpy.ndarray for the numpy backend, got {kind}: "
                "convert it on its own side first (cupy.asnumpy(a), tensor.numpy(), numpy.array)"
            )

    def philox(self, key: tuple[int, int], counter: tuple[int, int, int, int], n: int) -> Array:
        generator = np.random.Philox(
            key=np.array(key, np.uint64), counter=np.array(counter, np.uint64)
        )
        blocks = generator.random_raw((n + 1) // 2)
        return blocks.astype("<u8", copy=False).view(np.uint32)[:n]

    def _plan(self, geometry: Geometry, c_in: int, c_out: int) -> Convolution:
        """By transforms where that is estimated to take less time: [spectral.7]."""
        if spectral_is_faster(geometry, c_in, c_out):
            return SpectralConvolution(self, geometry, c_in, c_out)
        kind = RowConvolution if c_in > FEW else DirectConvolution
        return kind(self, geometry, c_in, c_out)

    def affine(self, x: Array, W: Array, b: Array, out: Array) -> Array:
        out[...] = b
        return out if self._gemm_add(x, W, out) else super().affine(x, W, b, out)

    def matmul_add(self, a: Array, b: Array, out: Array) -> Array:
        return out if self._gemm_add(a, b, out) else super().matmul_add(a, b, out)

    def column_sums(self, x: Array, out: Array) -> Array:
        ones = self._ones(len(x), x.dtype)
        return np.matmul(ones, x, out=out)  # a GEMV: three times faster than add.reduce

    def _ones(self, n: int, dtype: Any) -> Array:
        ones = self._scratch.get(("ones", (n,), dtype))
        if ones is None:
            ones = self._scratch[("ones", (n,), dtype)] = np.ones(n, dtype)
        return ones

    def leaky_factor(self, x: Array, slope: float, out: Array) -> Array:
        # The sign bit, spread over a word, chooses between the bit patterns of 1 and of the slope.
        word, bits = (np.int32, 31) if x.dtype == np.float32 else (np.int64, 63)
        one, low = np.array([1.0, slope], x.dtype).view(word)
        pattern = out.view(word)
        np.right_shift(x.view(word), bits, out=pattern)
        np.bitwise_and(pattern, one ^ low, out=pattern)
        np.bitwise_xor(pattern, one, out=pattern)
        return out

    def leaky(self, x: Array, slope: float, out: Array) -> Array:
        if not 0.0 <= slope <= 1.0:
            return super().leaky(x, slope, out)
        np.multiply(x, slope, out=out)  # two plain passes cost half of the factor's three and one
        return np.maximum(x, out, out=out)

    def dropout_factor(self, words: Array, q: int, out: Array) -> Array:
        # Bytes become factors in two passes: one turns them into the memory order of `out`.
        bits = words.view(np.uint8)[: out.size].reshape(out.shape)
        key = ("dropout", out.shape, out.strides)
        if key not in self._scratch:
            self._scratch[key] = np.empty_like(out, np.bool_)
        kept = np.less(bits, q, out=self._scratch[key])
        return np.multiply(kept, out.dtype.type(256.0 / q), out=out)

    def maxout_backward(self, dy: Array, h: Array, y: Array, out: Array) -> Array:
        free = self.scratch("maxout_free", y.shape, np.bool_)
        hit = self.scratch("maxout_hit", y.shape, np.bool_)
        free[...] = True
        for piece in range(h.shape[1]):
            np.equal(h[:, piece], y, out=hit)
            np.logical_and(hit, free, out=hit)  # of equal pieces the first one takes it
            np.logical_xor(free, hit, out=free)
            np.multiply(dy, hit, out=out[:, piece])
        return out

    def sgd(self, theta: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
        for i in range(0, len(theta), BLOCK):
            part = slice(i, i + BLOCK)
            super().sgd(theta[part], grad[part], velocity[part], lr, momentum)

    def adam(
        self,
        theta: Array,
        grad: Array,
        m: Array,
        v: Array,
        beta1: float,
        beta2: float,
        rate: float,
        eps: float,
    ) -> None:
        for i in range(0, len(theta), BLOCK):
            part = slice(i, i + BLOCK)
            super().adam(theta[part], grad[part], m[part], v[part], beta1, beta2, rate, eps)
