"""NumPy: OpenBLAS products, in-place ufuncs, and the few operations that a CPU does better its way.

Only what measured faster than the plain form of `interface.py` is here; the tests hold the two
equal. Large operations are cut in parts that a team of threads shares (`team.py`).
"""

from __future__ import annotations

import math
import platform
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygan.backend.blas import make_gemm_add, thread_count, unpacked
from tinygan.backend.convolution import FEW, Convolution, DirectConvolution
from tinygan.backend.geometry import Geometry
from tinygan.backend.interface import Array, Backend, Numbers
from tinygan.backend.lifted import Lifted
from tinygan.backend.row_convolution import RowConvolution
from tinygan.backend.spectral import SpectralConvolution, spectral_is_faster
from tinygan.backend.team import form_team, the_team

# Elements per block of an optimiser's update: its arrays stay in cache from one pass to the next,
# and the threads seldom meet at the interpreter's lock, which they need between two passes.
BLOCK = 1 << 17
# From here on waking the team (15 µs) pays: multiplications of a product, numbers of an array.
PRODUCT, ARRAY = 1 << 21, 1 << 16
# Where OpenBLAS has products without packing (`blas.unpacked`), up to MANY times as much is cut
# into pieces that are multiplied so. A piece has at most TRANSPOSED results if b lies transposed,
# best WIDE columns of them; pieces narrower than NARROW are not worth it. Elsewhere a sum of fewer
# than SHORT products is written in pieces of STRIP columns, which stay in a core's cache.
MANY, TRANSPOSED, WIDE, NARROW, SHORT, STRIP = 8, 1200, 64, 8, 32, 256
LINE = 64  # bytes of a line of cache


def require_numpy(array: Any, what: str, place: str = "") -> None:
    """Raise TypeError, naming the fix, unless it is a numpy.ndarray."""
    if not isinstance(array, np.ndarray):
        kind = f"{type(array).__module__.split('.')[0]} {type(array).__name__}"
        raise TypeError(
            f"{what} must be a numpy.ndarray{place}, got {kind}: "
            "convert it on its own side first (cupy.asnumpy(a), tensor.numpy(), numpy.array)"
        )


class NumpyBackend(Backend):
    """Arrays are numpy.ndarray; everything has happened when a call returns."""

    name = "numpy"
    instant = True
    # Axis 0 lies behind the two of space: a range of rows is then one matrix, ready for BLAS.
    image_axes = (1, 2, 0)

    def __init__(self, dtype: str = "float32", reason: str = "numpy, as asked") -> None:
        super().__init__(np, dtype)
        self._gemm_add, self._unpacked = make_gemm_add(), unpacked()
        self.lifted = Lifted()
        self.device = platform.processor() or platform.machine()
        self.reason = reason

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """From a border between two lines of cache on, where products read and write fastest."""
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = np.empty(size + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        return memory[start : start + size].view(dtype).reshape(shape)

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        if dtype is None:
            dtype = self.dtype if np.issubdtype(np.asarray(array).dtype, np.floating) else None
        return np.array(array, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return np.array(array, order="C")  # memory order is a matter between layers

    def check(self, array: Any, what: str) -> None:
        require_numpy(array, what, " for the numpy backend")

    def philox(
        self,
        key: tuple[int, int],
        counter: tuple[int, int, int, int],
        n: int,
        step: Numbers = (0,),
    ) -> Array:
        low, middle, third, high = counter
        at = low, middle, (third + int(step[0])) % (1 << 64), high
        generator = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(at, np.uint64))
        blocks = generator.random_raw((n + 1) // 2)
        return blocks.astype("<u8", copy=False).view(np.uint32)[:n]

    def expect_convolutions(self) -> None:
        # Now, and not in the middle of the first step: whoever resumes a run begins elsewhere, and
        # each product has to be cut alike, bit for bit.
        form_team()

    def _plan(self, geometry: Geometry, c_in: int, c_out: int) -> Convolution:
        """By transforms where that is estimated to take less time: [spectral.7]."""
        form_team()
        if spectral_is_faster(geometry, c_in, c_out):
            return SpectralConvolution(self, geometry, c_in, c_out)
        kind = RowConvolution if c_in > FEW else DirectConvolution
        return kind(self, geometry, c_in, c_out)

    # ---- sharing ---------------------------------------------------------------------------------

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        # Every thread has its own, so that the parts of one operation do not meet in it.
        return super().scratch(f"{name} {threading.get_ident()}", shape, dtype)

    def _share(self, n: int, work: Callable[[slice], Any], large: bool, multiple: int = 1) -> None:
        """work(part) for parts that make up range(n): one if the work is not `large`."""
        team = the_team()
        if not large or team.size == 1 or n < 2 * multiple * team.size:
            work(slice(0, n))
            return
        parts = team.parts(n, multiple)
        team.share(lambda i: work(parts[i]))

    def _elementwise(self, work: Callable[..., Any], *arrays: Array) -> None:
        """work(*arrays), part by part along the axis that lies slowest in the first one's memory.

        All arrays have one shape; vectors along the last axis are the business of `work`.
        """
        first = arrays[0]
        if first.size < ARRAY or the_team().size == 1:
            work(*arrays)
            return
        axis = max(range(first.ndim), key=lambda i: abs(first.strides[i]))

        def part(piece: slice) -> None:
            place = (slice(None),) * axis + (piece,)
            work(*(a[place] for a in arrays))

        self._share(first.shape[axis], part, large=True)

    # ---- products --------------------------------------------------------------------------------

    def _product(
        self, a: Array, b: Array, out: Array, product: Callable[..., Any], *more: Array
    ) -> Array:
        """product(a, b, out, *more), shared along the longer side of `out`; `more` lie like it."""
        (m, n), large = out.shape, out.size * a.shape[1] >= PRODUCT
        if not large or the_team().size == 1:
            product(a, b, out, *more)
            return out

        def columns(j: slice) -> None:
            product(a, b[:, j], out[:, j], *(each[:, j] for each in more))

        def rows(i: slice) -> None:
            product(a[i], b, out[i], *(each[i] for each in more))

        self._share(max(m, n), columns if n >= m else rows, large, multiple=16)
        return out

    # OpenBLAS computes with more lanes than a small matrix fills. What the spare ones meet may
    # raise the processor's flag "invalid", of which NumPy would warn; no result is touched.
    @np.errstate(invalid="ignore")
    def _in_pieces(self, a: Array, b: Array, out: Array) -> None:
        """out = a b by np.matmul, `out` in pieces of the size that is fast."""
        if a.shape[-2] > b.shape[-1]:
            a, b, out = (x.swapaxes(-1, -2) for x in (b, a, out))
        (m, k), n = a.shape[-2:], b.shape[-1]
        rows, width = self._piece(m, k, b)
        if (rows, width) != (m, n):
            a = a.reshape(*a.shape[:-2], -1, rows, k)[..., None, :, :]
            b = b.reshape(*b.shape[:-1], -1, width).swapaxes(-3, -2)[..., None, :, :, :]
            out = out.reshape(*out.shape[:-2], m // rows, rows, -1, width).swapaxes(-3, -2)
        np.matmul(a, b, out=out)

    def _piece(self, m: int, k: int, b: Array) -> tuple[int, int]:
        """The rows and columns of the pieces by which m rows are multiplied fast by b (k, n)."""
        n = b.shape[-1]
        if thread_count() not in (1, None):  # OpenBLAS's own threads share a product as a whole
            return m, n
        if not self._unpacked:
            return m, _halved(n, STRIP) if k < SHORT else n
        if m * k * n > MANY * self._unpacked:  # packing costs little beside the product itself
            return m, n
        most, rows, width = self._unpacked // max(1, k), m, n
        if b.strides[-1] != b.itemsize:
            most = min(most, TRANSPOSED)
            width = _halved(n, max(WIDE, most // max(1, m)))
            rows = _halved(m, most // max(1, width))
        width = _halved(width, most // max(1, rows))
        return (rows, width) if width >= NARROW and rows * width <= most else (m, n)

    def _add_product(self, a: Array, b: Array, out: Array) -> None:
        if not self._gemm_add(a, b, out):
            super().matmul_add(a, b, out)

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        if a.shape[1] == 1:
            return np.multiply(a, b, out=out)
        return self._product(a, b, out, self._in_pieces)

    def matmuls(self, a: Array, b: Array, out: Array) -> Array:
        def points(r: slice) -> None:
            self._in_pieces(a[r], b[r], out[r])

        self._share(len(out), points, out.size * a.shape[2] >= PRODUCT)
        return out

    def affine(self, x: Array, W: Array, b: Array, out: Array) -> Array:
        def product(x: Array, W: Array, out: Array, b: Array) -> None:
            out[...] = b
            self._add_product(x, W, out)

        return self._product(x, W, out, product, np.broadcast_to(b, out.shape))

    def matmul_add(self, a: Array, b: Array, out: Array) -> Array:
        return self._product(a, b, out, self._add_product)

    @np.errstate(invalid="ignore")
    def column_sums(self, x: Array, out: Array) -> Array:
        ones = self._ones(len(x), x.dtype)
        return np.matmul(ones, x, out=out)  # a GEMV: three times faster than add.reduce

    def add_column_sums(self, x: Array, out: Array) -> Array:
        (total,) = self._sums(lambda rows: (self._summed(x[rows]),), x)
        out += total
        return out

    def _ones(self, n: int, dtype: Any) -> Array:
        ones = self._scratch.get(("ones", (n,), dtype))
        if ones is None:
            ones = self._scratch[("ones", (n,), dtype)] = np.ones(n, dtype)
        return ones

    # ---- elementwise -----------------------------------------------------------------------------

    def copy(self, a: Array, out: Array) -> Array:
        self._elementwise(np.copyto, out, a)
        return out

    def multiply(self, a: Array, b: Array, out: Array) -> Array:
        self._elementwise(np.multiply, a, b, out)
        return out

    def leaky_factor(self, x: Array, slope: float, out: Array) -> Array:
        self._elementwise(_leaky_factors(x.dtype, slope), x, out)
        return out

    def leaky_backward(self, dy: Array, x: Array, slope: float, out: Array) -> Array:
        factors = _leaky_factors(x.dtype, slope)

        def part(out: Array, x: Array, dy: Array) -> None:
            factors(x, out)
            np.multiply(dy, out, out=out)

        self._elementwise(part, out, x, dy)
        return out

    def leaky(self, x: Array, slope: float, out: Array) -> Array:
        if not 0.0 <= slope <= 1.0:
            return super().leaky(x, slope, out)

        def part(x: Array, out: Array) -> None:
            # Two plain passes cost half of leaky_factor's three and a product.
            np.multiply(x, slope, out=out)
            np.maximum(x, out, out=out)

        self._elementwise(part, x, out)
        return out

    def dropout_factor(self, words: Array, q: int, out: Array) -> Array:
        self._elementwise(self._factors(q), out, *self._bits(words, out))
        return out

    def dropout(self, x: Array, words: Array, q: int, factor: Array, out: Array) -> Array:
        factors = self._factors(q)

        def part(factor: Array, bits: Array, kept: Array, x: Array, out: Array) -> None:
            factors(factor, bits, kept)
            np.multiply(x, factor, out=out)

        self._elementwise(part, factor, *self._bits(words, factor), x, out)
        return out

    def _bits(self, words: Array, factor: Array) -> tuple[Array, Array]:
        """A byte for each factor, and memory for whether it is below q."""
        key = ("dropout", factor.shape, factor.strides)
        if key not in self._scratch:
            self._scratch[key] = np.empty_like(factor, np.bool_)
        return words.view(np.uint8)[: factor.size].reshape(factor.shape), self._scratch[key]

    def _factors(self, q: int) -> Callable[[Array, Array, Array], None]:
        """The function (factor, bits, kept) that makes the factors of dropout."""
        scale = self.dtype.type(256.0 / q)

        def make(factor: Array, bits: Array, kept: Array) -> None:
            # In two passes: the first one turns the bytes into the memory order of `factor`.
            np.less(bits, q, out=kept)
            np.multiply(kept, scale, out=factor)

        return make

    # ---- batch normalisation: x (rows, C) --------------------------------------------------------

    def _sums(self, work: Callable[[slice], tuple[Array, ...]], x: Array) -> tuple[Array, ...]:
        """Sums over the rows of x, from the sums that work(rows) returns for each part."""
        found: dict[int, tuple[Array, ...]] = {}

        def part(rows: slice) -> None:
            found[rows.start] = work(rows)

        self._share(len(x), part, x.size >= ARRAY)
        parts = [found[start] for start in sorted(found)]  # in one order, whoever came first
        return tuple(sum(each[1:], each[0]) for each in zip(*parts, strict=True))

    def _summed(self, x: Array) -> Array:
        # A new vector: one thread may do several parts, and all of their sums are still needed.
        return self.column_sums(x, out=np.empty(x.shape[1], x.dtype))

    def batch_norm(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        eps: float,
        x_hat: Array,
        y: Array,
        stats: Array,
    ) -> None:
        n = len(x)
        (mean,) = self._sums(lambda rows: (self._summed(x[rows]),), x)
        mean = mean / n

        def centre(rows: slice) -> tuple[Array]:
            np.subtract(x[rows], mean, out=x_hat[rows])
            np.multiply(x_hat[rows], x_hat[rows], out=y[rows])
            return (self._summed(y[rows]),)

        (var,) = self._sums(centre, x)
        var = var / n
        inv_std = 1.0 / np.sqrt(var + eps)

        def scale(rows: slice) -> None:
            np.multiply(x_hat[rows], inv_std, out=x_hat[rows])
            np.multiply(x_hat[rows], gamma, out=y[rows])
            np.add(y[rows], beta, out=y[rows])

        self._share(n, scale, x.size >= ARRAY)
        stats[0], stats[1], stats[2] = mean, var, inv_std

    def batch_norm_backward(
        self,
        dy: Array,
        x_hat: Array,
        gamma: Array,
        inv_std: Array,
        out: Array,
        gradients: tuple[Array, Array] | None = None,
    ) -> Array:
        n = len(dy)

        def sums(rows: slice) -> tuple[Array, Array]:
            np.multiply(dy[rows], x_hat[rows], out=out[rows])
            return self._summed(out[rows]), self._summed(dy[rows])

        d_gamma, d_beta = self._sums(sums, dy)
        scale, slope, level = gamma * inv_std, d_gamma / n, d_beta / n

        def part(rows: slice) -> None:
            np.multiply(x_hat[rows], slope, out=out[rows])
            np.add(out[rows], level, out=out[rows])
            np.subtract(dy[rows], out[rows], out=out[rows])
            np.multiply(out[rows], scale, out=out[rows])

        self._share(n, part, dy.size >= ARRAY)
        if gradients is not None:
            for gradient, total in zip(gradients, (d_gamma, d_beta), strict=True):
                gradient += total
        return out

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

    # ---- optimisers: flat arrays -----------------------------------------------------------------

    def sgd(self, theta: Array, grad: Array, velocity: Array, rates: Numbers) -> None:
        self._blocks(super().sgd, (theta, grad, velocity), rates)

    def adam(
        self,
        theta: Array,
        grad: Array,
        m: Array,
        v: Array,
        beta1: float,
        beta2: float,
        rates: Numbers,
    ) -> None:
        self._blocks(super().adam, (theta, grad, m, v), beta1, beta2, rates)

    def _blocks(self, update: Callable[..., None], arrays: tuple[Array, ...], *rest: Any) -> None:
        """An update of flat arrays, block by block."""

        def part(mine: slice) -> None:
            for i in range(mine.start, mine.stop, BLOCK):
                block = slice(i, min(i + BLOCK, mine.stop))
                update(*(a[block] for a in arrays), *rest)

        self._share(len(arrays[0]), part, len(arrays[0]) >= ARRAY)


def _leaky_factors(dtype: Any, slope: float) -> Callable[[Array, Array], None]:
    """The function (x, out) that does what `leaky_factor` says."""
    # The sign bit, spread over a word, chooses between the bit patterns of 1 and of the slope.
    word, bits = (np.int32, 31) if dtype == np.float32 else (np.int64, 63)
    one, low = np.array([1.0, slope], dtype).view(word)

    def factors(x: Array, out: Array) -> None:
        pattern = out.view(word)
        np.right_shift(x.view(word), bits, out=pattern)
        np.bitwise_and(pattern, one ^ low, out=pattern)
        np.bitwise_xor(pattern, one, out=pattern)

    return factors


def _halved(n: int, most: int) -> int:
    """n, divided by two as long as it is even and more than `most`."""
    while n > most and n % 2 == 0:
        n //= 2
    return n
