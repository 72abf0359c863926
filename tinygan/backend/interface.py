"""What a backend is: an array module `xp` and a short list of operations, each with its formula.

Every operation stands here in its plain form, written once for both array modules. A backend may
replace it by a faster one; tests hold each fast form equal to the plain one beside it.

Operations write into `out` (allocating in steady state is what makes small networks slow), never
into any other argument, and return `out`, a 0-d array, or nothing. Shapes: x (N, n_in),
W (n_in, n_out), b (n_out,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinygan.backend.convolution import Convolution, DirectConvolution
from tinygan.backend.geometry import Geometry

Array = Any  # a numpy.ndarray or a cupy.ndarray: which one is known to the backend alone
Numbers = Any  # what Backend.numbers gives: a tuple of numbers, or a float64 array on a device


def memory_order(x: Array) -> Sequence[int]:
    """x's axes, slowest first, if its last one lies fastest; else in C order.

    Axes of one entry lie anywhere. Whether an axis runs backwards (x[::-1]) makes no difference.
    """
    axes, steps = range(x.ndim), [abs(step) for step in x.strides]
    if not axes:
        return axes
    *before, last = axes
    if x.shape[last] > 1 and any(x.shape[a] > 1 and steps[a] < steps[last] for a in before):
        return axes
    return [*sorted(before, key=lambda axis: -steps[axis]), last]


def in_own_order(memory: Array, order: Sequence[int]) -> Array:
    """An array's axes in their own order, of memory in which they lie in `order`: a view."""
    return memory.transpose([order.index(axis) for axis in range(len(order))])


class Shared:
    """Buffers that all layers of a backend share: good until the next pass of any layer."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def new(self, name: str, shape: tuple[int, ...]) -> Array:
        return self._backend.workspace(f"shared {name}", shape)

    def images(self, name: str, shape: tuple[int, ...]) -> Array:
        return self._backend.scratch_images(f"shared {name}", shape)


class Turns:
    """Two buffers that take turns: for what is read once, by the next layer [vjp.6], [vjp.7]."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._size, self._turn = 0, 0

    def take(self, shape: tuple[int, ...], order: Sequence[int]) -> Array:
        """Memory that the last `take` did not give, the axes in this order, slowest first."""
        size = math.prod(shape)
        self._size, self._turn = max(self._size, size), 1 - self._turn
        both = self._backend.workspace("read once", (2, self._size))
        return in_own_order(both[self._turn, :size].reshape([shape[a] for a in order]), order)


class Backend:
    """An array module, a floating dtype, and the operations that networks spend their time in."""

    name: str
    device: str  # in words, for run.json and benchmark reports
    reason: str  # why this backend was taken
    instant = False  # whether one can look at a number without waiting for a device
    image_axes = (0, 1, 2)  # the order in memory of an image array's axes (N, H, W), slowest first

    def __init__(self, xp: Any, dtype: str) -> None:
        self.xp = xp
        self.dtype = xp.dtype(dtype)
        self._scratch: dict[tuple[str, tuple[int, ...], Any], Array] = {}
        self._workspaces: dict[str, Array] = {}
        self.shared, self.turns = Shared(self), Turns(self)
        self._plans: dict[tuple[Geometry, int, int], Convolution] = {}

    # ---- memory ------------------------------------------------------------------------------

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        """A copy of a NumPy array on this backend (default: its own dtype for floats)."""
        raise NotImplementedError

    def to_host(self, array: Array) -> Any:
        """A copy of `array` as a NumPy array; on a GPU this waits for the device."""
        raise NotImplementedError

    def expect_convolutions(self) -> None:
        """A network with convolutions is going to be used: said before its first pass."""

    def synchronise(self) -> None:
        """Wait until the device has finished (NumPy: at once)."""

    def check(self, array: Any, what: str) -> None:
        """Raise TypeError, naming the fix, unless `array` is an array of this backend."""
        raise NotImplementedError

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        return self.xp.empty(shape, self.dtype if dtype is None else dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        return self.xp.zeros(shape, self.dtype if dtype is None else dtype)

    def empty_like(self, x: Array) -> Array:
        """An array of x's shape and dtype, and of its order in memory if the last axis lies
        fastest there; else in C order. So `rows` of it is a view."""
        order = memory_order(x)
        return in_own_order(self.empty(tuple(x.shape[a] for a in order), x.dtype), order)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A buffer for use within one operation, the same memory at every call."""
        key = (name, shape, self.dtype if dtype is None else dtype)
        if key not in self._scratch:
            self._scratch[key] = self.empty(shape, dtype)
        return self._scratch[key]

    def workspace(self, name: str, shape: tuple[int, ...]) -> Array:
        """The same for large buffers: one memory for all shapes, as large as the largest."""
        size = math.prod(shape)
        flat = self._workspaces.get(name)
        if flat is None or len(flat) < size:
            flat = self._workspaces[name] = self.empty((size,))
        return flat[:size].reshape(shape)

    # ---- steps that are recorded and replayed ----------------------------------------------------

    def numbers(self, count: int, read: Callable[[], tuple[float, ...]]) -> Numbers:
        """`read()`, `count` numbers that another step may have otherwise: [gpu.2].

        A captured step calls `read` anew at each replay; any other number it has seen is fixed in
        it for ever. Integers are exact below 2^53.
        """
        return read()

    def capture(self, step: Callable[[], object]) -> Callable[[], object]:
        """What makes the step, with less work for the CPU where the backend can: [gpu.1].

        `step` must do the same at every call but for its `numbers` and the contents of arrays.
        """
        return step

    # ---- noise -----------------------------------------------------------------------------------

    def philox(
        self,
        key: tuple[int, int],
        counter: tuple[int, int, int, int],
        n: int,
        step: Numbers = (0,),
    ) -> Array:
        """n uint32 words of Philox 4x64-10 as `numpy.random.Philox` makes them: [noise.1].

        `key` and `counter` are 64-bit words, least significant first, and `step` is added to the
        third of the counter's. The counter is advanced by one before the first block; each 64-bit
        output gives its low half, then its high half.
        """
        raise NotImplementedError

    def uniforms(self, words: Array, low: float, high: float, out: Array) -> Array:
        """out = low + (high - low) u, with u = (word + 1/2) / 2^32 in float64: [noise.2]."""
        u = self._unit(words)
        u *= high - low
        u += low
        out[...] = u.reshape(out.shape)
        return out

    def normals(self, words: Array, std: float, out: Array) -> Array:
        """out = std·sqrt(-2 log u1)·(cos, sin)(2π u2), in float64, of pairs of words: [noise.3].

        There are as many words as `out` has numbers, or one more to make them even.
        """
        xp, pairs = self.xp, self._unit(words).reshape(-1, 2)
        radius = xp.sqrt(-2.0 * xp.log(pairs[:, 0])) * std
        angle = pairs[:, 1] * (2.0 * xp.pi)
        z = self.empty(pairs.shape, out.dtype)
        z[:, 0] = radius * xp.cos(angle)
        z[:, 1] = radius * xp.sin(angle)
        out[...] = z.reshape(-1)[: out.size].reshape(out.shape)
        return out

    def integers(self, words: Array, high: int, out: Array) -> Array:
        """out = word·high >> 32, int64: [noise.4]."""
        out[...] = words
        out *= high
        out >>= 32
        return out

    def _unit(self, words: Array) -> Array:
        """(word + 1/2) / 2^32, in the open interval (0, 1), float64"""
        u = words.astype("float64")
        u += 0.5
        u *= 2.0**-32
        return u

    # ---- the memory order of images --------------------------------------------------------------

    def empty_images(self, shape: tuple[int, ...]) -> Array:
        """An array (N, H, W, ...) whose axes lie in memory in the order `image_axes`: [conv.7].

        Its shape is what every user sees; where a sample lies is known here alone.
        """
        order = (*self.image_axes, *range(3, len(shape)))
        return in_own_order(self.empty(tuple(shape[a] for a in order)), order)

    def scratch_images(self, name: str, shape: tuple[int, ...]) -> Array:
        """`scratch` in the memory order of images."""
        key = (f"{name} images", shape, self.dtype)
        if key not in self._scratch:
            self._scratch[key] = self.empty_images(shape)
        return self._scratch[key]

    def rows(self, x: Array, like: Array | None = None) -> Array:
        """(N, ..., C) as a matrix (rows, C) without a copy; the rows stand as they lie in memory.

        With `like`, an array of the same shape, they stand as they lie there, if need be by a copy.
        """
        if x.ndim == 2:
            return x
        strides, last = (x if like is None else like).strides, x.ndim - 1
        axes = sorted(range(last), key=lambda axis: -strides[axis])
        return x.transpose(*axes, last).reshape(-1, x.shape[-1])

    # ---- products ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """out = a b"""
        return self.xp.matmul(a, b, out=out)

    def matmuls(self, a: Array, b: Array, out: Array) -> Array:
        """out[r] = a[r] b[r], for a (R, m, k), b (R, k, n)"""
        return self.xp.matmul(a, b, out=out)

    def affine(self, x: Array, W: Array, b: Array, out: Array) -> Array:
        """out = x W + b"""
        self.matmul(x, W, out)
        out += b
        return out

    def matmul_add(self, a: Array, b: Array, out: Array) -> Array:
        """out += a b"""
        out += self.xp.matmul(a, b, out=self.scratch("matmul_add", out.shape, out.dtype))
        return out

    def column_sums(self, x: Array, out: Array) -> Array:
        """out = 1ᵀ x, for x (N, n)"""
        return self.xp.sum(x, axis=0, out=out)

    def add_column_sums(self, x: Array, out: Array) -> Array:
        """out += 1ᵀ x"""
        out += self.column_sums(x, self.scratch("column_sums", out.shape, out.dtype))
        return out

    # ---- convolutions: images (N, H, W, C), kernels (kh, kw, c_in, c_out) ------------------------

    def convolution(self, geometry: Geometry, c_in: int, c_out: int) -> Convolution:
        """How this backend computes a convolution and its two other derivatives: [conv.1]."""
        key = (geometry, c_in, c_out)
        if key not in self._plans:
            self._plans[key] = self._plan(geometry, c_in, c_out)
        return self._plans[key]

    def _plan(self, geometry: Geometry, c_in: int, c_out: int) -> Convolution:
        """The plain form; a backend may choose a faster one."""
        return DirectConvolution(self, geometry, c_in, c_out)

    # ---- max pooling: images (N, H, W, C), windows (N, P, Q, C) ----------------------------------

    def max_pool(self, x: Array, geometry: Geometry, y: Array, winner: Array) -> Array:
        """y = the largest x of each window, winner = its place there, a·kw + b: [pool.1].

        Of equal entries the first, row by row; pixels outside count as -infinity.
        """
        xp, leads = self.xp, self.scratch_images("leads", y.shape)
        y.fill(float("-inf"))
        winner.fill(0)
        for place, at, pixels in geometry.places():
            xp.greater(x[pixels], y[at], out=leads[at])  # strictly: of equals the first stays
            xp.multiply(leads[at], place, out=leads[at])
            xp.maximum(winner[at], leads[at], out=winner[at])
            xp.maximum(y[at], x[pixels], out=y[at])
        return y

    def max_pool_backward(self, dy: Array, winner: Array, geometry: Geometry, out: Array) -> Array:
        """out = dy, added to the pixel that won each window; elsewhere zero: [pool.2]."""
        xp, share = self.xp, self.scratch_images("share", dy.shape)
        out.fill(0)
        for place, at, pixels in geometry.places():
            xp.equal(winner[at], place, out=share[at])
            xp.multiply(share[at], dy[at], out=share[at])
            xp.add(out[pixels], share[at], out=out[pixels])
        return out

    # ---- activations -------------------------------------------------------------------------

    def copy(self, a: Array, out: Array) -> Array:
        """out = a, for arrays of one shape that may lie in memory in other orders"""
        out[...] = a
        return out

    def multiply(self, a: Array, b: Array, out: Array) -> Array:
        """out = a ⊙ b, for arrays of one shape"""
        return self.xp.multiply(a, b, out=out)

    def leaky_factor(self, x: Array, slope: float, out: Array) -> Array:
        """out = slope where the sign bit of x is set, else 1: the slope of leaky at x, [act.4]."""
        out[...] = self.xp.where(self.xp.signbit(x), slope, 1.0)
        return out

    def leaky(self, x: Array, slope: float, out: Array) -> Array:
        """out = x·leaky_factor(x)"""
        self.leaky_factor(x, slope, out=out)
        return self.multiply(x, out, out=out)

    def leaky_backward(self, dy: Array, x: Array, slope: float, out: Array) -> Array:
        """out = dy·leaky_factor(x)"""
        self.leaky_factor(x, slope, out=out)
        return self.multiply(dy, out, out=out)

    def sigmoid(self, x: Array, out: Array) -> Array:
        """out = 1 / (1 + exp(-x)) without overflow: [act.7].

        To full relative precision, down to the least value (1.8e-35 in float32).
        """
        # exp stays finite up to this limit in the narrower of the two dtypes' ranges.
        limit = 80.0 if x.dtype.itemsize == 4 else 700.0
        self.xp.negative(x, out=out)
        self.xp.minimum(out, limit, out=out)
        self.xp.exp(out, out=out)
        out += 1.0
        return self.xp.reciprocal(out, out=out)

    def tanh_backward(self, dy: Array, y: Array, out: Array) -> Array:
        """out = dy (1 - y²)"""
        self.xp.multiply(y, y, out=out)
        self.xp.subtract(1.0, out, out=out)
        out *= dy
        return out

    def sigmoid_backward(self, dy: Array, y: Array, out: Array) -> Array:
        """out = dy y (1 - y)"""
        self.xp.subtract(1.0, y, out=out)
        out *= y
        out *= dy
        return out

    def maxout(self, h: Array, out: Array) -> Array:
        """out[n, u] = max_p h[n, p, u], for h (N, pieces, units)"""
        return self.xp.max(h, axis=1, out=out)

    def maxout_backward(self, dy: Array, h: Array, y: Array, out: Array) -> Array:
        """out[n, p, u] = dy[n, u] where p is the first piece with h = y, else 0."""
        pieces = self.xp.arange(h.shape[1])[:, None]
        out[...] = (h.argmax(axis=1)[:, None, :] == pieces) * dy[:, None, :]
        return out

    # ---- batch normalisation: x (N, C) -----------------------------------------------------------

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
        """x_hat = (x - mean) / sqrt(var + eps), y = gamma x_hat + beta: [bn.1].

        stats (3, C) = mean, (biased) variance and 1 / sqrt(var + eps) of the batch.
        """
        n, mean, var, inv_std = len(x), stats[0], stats[1], stats[2]
        self.column_sums(x, out=mean)
        mean /= n
        self.xp.subtract(x, mean, out=x_hat)
        self.xp.multiply(x_hat, x_hat, out=y)
        self.column_sums(y, out=var)
        var /= n
        self.xp.add(var, eps, out=inv_std)
        self.xp.sqrt(inv_std, out=inv_std)
        self.xp.reciprocal(inv_std, out=inv_std)
        x_hat *= inv_std
        self.xp.multiply(x_hat, gamma, out=y)
        y += beta

    def batch_norm_backward(
        self,
        dy: Array,
        x_hat: Array,
        gamma: Array,
        inv_std: Array,
        out: Array,
        gradients: tuple[Array, Array] | None = None,
    ) -> Array:
        """out = gamma·inv_std·(dy - mean(dy) - x_hat·mean(dy·x_hat)): [bn.2].

        `gradients`, if they are wanted, are those of gamma and beta: 1ᵀ(dy·x_hat) is added to the
        one, 1ᵀdy to the other.
        """
        n, c = x_hat.shape
        sums = self.scratch("bn_sums", (2, c), dy.dtype)
        d_gamma, d_beta = sums[0], sums[1]
        self.column_sums(dy, out=d_beta)
        self.xp.multiply(dy, x_hat, out=out)
        self.column_sums(out, out=d_gamma)
        row = self.scratch("bn_row", (2, c), dy.dtype)
        self.xp.multiply(d_gamma, 1.0 / n, out=row[0])
        self.xp.multiply(d_beta, 1.0 / n, out=row[1])
        self.xp.multiply(x_hat, row[0], out=out)
        out += row[1]
        self.xp.subtract(dy, out, out=out)
        self.xp.multiply(gamma, inv_std, out=row[0])
        out *= row[0]
        if gradients is not None:
            for gradient, total in zip(gradients, (d_gamma, d_beta), strict=True):
                gradient += total
        return out

    def move_statistics(self, mean: Array, var: Array, stats: Array, momentum: float) -> None:
        """mean = momentum·mean + (1 - momentum)·stats[0], var likewise with stats[1]: [bn.4]."""
        for running, batch in ((mean, stats[0]), (var, stats[1])):
            running *= momentum
            running += (1.0 - momentum) * batch

    # ---- losses: logits (N, 1), labels of the same shape or one number for all -------------------

    def bce_logits(self, x: Array, target: Any, out: Array, share: float = 1.0) -> Array:
        """share·mean of max(x, 0) - x t + log1p(exp(-|x|)), a 0-d array: [bce.3].

        out = share·(sigmoid(x) - t) / N, its gradient: [bce.4].
        """
        xp = self.xp
        loss = xp.maximum(x, 0.0) - x * target + xp.log1p(xp.exp(-xp.abs(x)))
        self.sigmoid(x, out=out)
        out -= target
        out *= share / x.size
        return share * loss.mean()

    def bce_probabilities(
        self, x: Array, target: Any, eps: float, out: Array, share: float = 1.0
    ) -> Array:
        """share·mean of -t log p - (1 - t) log(1 - p), p = sigmoid(x) in [eps, 1 - eps]: [bce.1].

        out = its gradient: share/N·(p - t) / (p (1 - p)) inside the clip, 0 outside [bce.2], then
        through the sigmoid, times p (1 - p): [obj.4].
        """
        xp, p = self.xp, self.sigmoid(x, out=self.scratch("bce", x.shape, x.dtype))
        q = xp.clip(p, eps, 1.0 - eps)
        loss = -(target * xp.log(q) + (1.0 - target) * xp.log1p(-q))
        out[...] = xp.where(q == p, (q - target) / (q * (1.0 - q)), 0.0)
        out *= share * p * (1.0 - p) / x.size
        return share * loss.mean()

    # ---- optimisers: flat arrays ---------------------------------------------------------------

    def sgd(self, theta: Array, grad: Array, velocity: Array, rates: Numbers) -> None:
        """velocity = momentum·velocity - lr·grad; theta += velocity: [sgd.1].

        `rates` are lr and momentum.
        """
        lr, momentum = rates[0], rates[1]
        velocity *= momentum
        velocity -= self.xp.multiply(
            grad, lr, out=self.scratch("optimiser", grad.shape, grad.dtype)
        )
        theta += velocity

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
        """m = beta1·m + grad, v = beta2·v + grad², theta -= rate·m / (sqrt(v) + eps): [adam.3].

        The moments are kept without their factors (1 - beta); `rates` are rate and eps, rescaled.
        """
        rate, eps = rates[0], rates[1]
        s = self.scratch("optimiser", grad.shape, grad.dtype)
        m *= beta1
        m += grad
        v *= beta2
        v += self.xp.multiply(grad, grad, out=s)
        self.xp.sqrt(v, out=s)
        s += eps
        self.xp.divide(m, s, out=s)
        s *= rate
        theta -= s

    # ---- data and noise ------------------------------------------------------------------------

    def window(self, x: Array, at: Numbers, n: int) -> Array:
        """x[at : at + n], for integers x (N,): perhaps a view"""
        start = int(at[0])
        return x[start : start + n]

    def dropout_factor(self, words: Array, q: int, out: Array) -> Array:
        """out = 256/q where the i-th byte of `words` is below q, else 0: [dropout.3]."""
        bits = words.view(self.xp.uint8)[: out.size].reshape(out.shape)
        return self.xp.multiply(bits < q, 256.0 / q, out=out)

    def dropout(self, x: Array, words: Array, q: int, factor: Array, out: Array) -> Array:
        """factor = dropout_factor(words, q), out = x ⊙ factor: [dropout.1]"""
        return self.multiply(x, self.dropout_factor(words, q, out=factor), out=out)

    def gather_images(
        self, images: Array, index: Array, scale: float, shift: float, out: Array
    ) -> Array:
        """out = scale·images[index] + shift, for uint8 images (N, H, W, C)"""
        self.xp.multiply(images[index], self.dtype.type(scale), out=out)
        out += shift
        return out
