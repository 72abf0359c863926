"""Every operation of a backend on drawn inputs, compared with its plain form in interface.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tinygan.backend import Backend
from tinygan.backend.geometry import Geometry
from tinygan.backend.numpy_backend import NumpyBackend
from tinygan.nn import Cache

FLAVOURS = ("normal", "ties", "extreme")


class Plain(Backend):
    """The plain form of every operation, over NumPy: the reference."""

    name = device = reason = "plain"

    def __init__(self, dtype: str) -> None:
        super().__init__(np, dtype)

    from_host, to_host, philox = NumpyBackend.from_host, NumpyBackend.to_host, NumpyBackend.philox


@dataclass(frozen=True)
class Operation:
    """draw(values, n, m) gives host inputs, call(backend, *inputs) the outputs to compare.

    exact: the outputs have the same bits. Else errors are measured against `scale` of the output
    and the inputs (default: the largest value of the output).
    """

    draw: Callable[..., tuple[Any, ...]]
    call: Callable[..., tuple[Any, ...]]
    exact: bool = False
    scale: Callable[..., float] | None = None
    flavours: tuple[str, ...] = FLAVOURS


class Values:
    """Draws arrays of one flavour: normal, with many equal values and zeros of both signs, or
    with magnitudes up to 1e4."""

    def __init__(self, seed: int, dtype: Any, flavour: str) -> None:
        self.rng, self.dtype, self.flavour = np.random.default_rng(seed), dtype, flavour

    def __call__(self, *shape: int) -> Any:
        x = self.rng.standard_normal(shape)
        if self.flavour == "ties":
            x = np.round(x)  # -2, -1, -0.0, 0.0, 1, 2
        if self.flavour == "extreme":
            x = np.clip(x * 10.0 ** self.rng.integers(-4, 5, shape), -1e4, 1e4)
            x[self.rng.random(shape) < 0.1] = 1e4
            x[self.rng.random(shape) < 0.1] = -1e4
        return x.astype(self.dtype)

    def positive(self, *shape: int) -> Any:
        return np.abs(self(*shape))

    def labels(self, *shape: int) -> Any:
        return self.rng.choice([0.0, 0.1, 0.9, 1.0], shape).astype(self.dtype)


def _out(b: Backend, like: Any) -> Any:
    return b.empty(like.shape)


def _elementwise(name: str, inputs: int, *numbers: float, exact: bool = True) -> Operation:
    def call(b: Backend, *arrays: Any) -> tuple[Any, ...]:
        return (getattr(b, name)(*arrays, *numbers, out=_out(b, arrays[0])),)

    return Operation(lambda v, n, m: tuple(v(n, m) for _ in range(inputs)), call, exact)


def _sums(b: Backend, x: Any) -> tuple[Any, ...]:
    return (b.column_sums(x, out=b.empty((x.shape[1],))),)


def _add_sums(b: Backend, x: Any, out: Any) -> tuple[Any, ...]:
    return (b.add_column_sums(x, out=out),)


def _maxout(b: Backend, h: Any, dy: Any) -> tuple[Any, ...]:
    y = b.maxout(h, out=_out(b, dy))
    return y, b.maxout_backward(dy, h, y, out=_out(b, h))


def _batch_norm(b: Backend, x: Any, gamma: Any, beta: Any) -> tuple[Any, ...]:
    x_hat, y, stats = _out(b, x), _out(b, x), b.empty((3, *gamma.shape))
    b.batch_norm(x, gamma, beta, 1e-3, x_hat, y, stats)
    return x_hat, y, stats[0], stats[1], stats[2]


def _batch_norm_backward(
    b: Backend, dy: Any, x_hat: Any, gamma: Any, inv_std: Any, d_gamma: Any, d_beta: Any
) -> tuple[Any, ...]:
    arrays = (dy, x_hat, gamma, inv_std)
    alone = b.batch_norm_backward(*arrays, out=_out(b, dy))
    beside = b.batch_norm_backward(*arrays, out=_out(b, dy), gradients=(d_gamma, d_beta))
    return alone, beside, d_gamma, d_beta


def _move_statistics(b: Backend, mean: Any, var: Any, stats: Any) -> tuple[Any, ...]:
    b.move_statistics(mean, var, stats, 0.8)
    return mean, var


def _bce(name: str, *numbers: float) -> Callable[..., tuple[Any, ...]]:
    def call(b: Backend, x: Any, target: Any) -> tuple[Any, ...]:
        results = []
        for t, share in [(target, 1.0), (1.0, 0.5), (0.0, -1.0), (0.9, 0.3), (1, 1.0)]:
            out = _out(b, x)
            results += [getattr(b, name)(x, t, *numbers, out=out, share=share), out]
        return tuple(results)

    return call


def _off_the_clip(v: Values, n: int, m: int) -> tuple[Any, ...]:
    """Logits, none where two libraries' sigmoids could lie on two sides of the clip, and labels."""
    x = v(n * m, 1)
    return np.where(abs(abs(x) - 16) < 1, np.sign(x) * x.dtype.type(14), x), v.labels(n * m, 1)


def _sgd(b: Backend, theta: Any, grad: Any, velocity: Any) -> tuple[Any, ...]:
    b.sgd(theta, grad, velocity, b.numbers(2, lambda: (0.1, 0.7)))
    return theta, velocity


def _adam(b: Backend, theta: Any, grad: Any, m: Any, v: Any) -> tuple[Any, ...]:
    b.adam(theta, grad, m, v, 0.5, 0.999, b.numbers(2, lambda: (2e-4, 1e-8)))
    return theta, m, v


def _adam_draw(v: Values, n: int, m: int) -> tuple[Any, ...]:
    return v(n * m), v(n * m), v(n * m), v.positive(n * m)


def _uniforms(b: Backend, words: Any, like: Any) -> tuple[Any, ...]:
    ranges = ((0.0, 1.0), (-0.3, 0.7), (1e4, 1e4 + 1))
    return tuple(b.uniforms(words, *ends, out=_out(b, like)) for ends in ranges)


def _normals(b: Backend, words: Any, like: Any) -> tuple[Any, ...]:
    return tuple(b.normals(words, std, out=_out(b, like)) for std in (1.0, 0.02))


def _integers(b: Backend, words: Any) -> tuple[Any, ...]:
    highs = (1, 2, 10, 60_000, 1 << 31)
    return tuple(b.integers(words, high, out=b.empty(words.shape, "int64")) for high in highs)


def _words(v: Values, n: int) -> Any:
    """Words of noise; where other values have ties, the first and the last ones there are."""
    words = v.rng.integers(0, 1 << 32, n, np.uint32)
    return words if v.flavour == "normal" else np.where(words % 3 == 0, (words & 1) - 1, words)


def _dropout(b: Backend, words: Any, like: Any) -> tuple[Any, ...]:
    return tuple(b.dropout_factor(words, q, out=_out(b, like)) for q in (1, 128, 205, 256))


def _whole_dropout(b: Backend, x: Any, words: Any) -> tuple[Any, ...]:
    results = []
    for q in (1, 205, 256):
        factor, out = _out(b, x), _out(b, x)
        results += [b.dropout(x, words, q, factor, out=out), factor]
    return tuple(results)


def _dropout_draw(v: Values, n: int, m: int) -> tuple[Any, ...]:
    return v.rng.integers(0, 1 << 32, (n * m + 3) // 4, np.uint32), v(n, m)


def _gather(b: Backend, images: Any, index: Any) -> tuple[Any, ...]:
    out = b.empty((len(index), *images.shape[1:]))
    return (b.gather_images(images, index, 2.0 / 255.0, -1.0, out=out),)


def _gather_draw(v: Values, n: int, m: int) -> tuple[Any, ...]:
    images = v.rng.integers(0, 256, (n, m, 2, 1), np.uint8)
    return images, v.rng.integers(0, n, 7, np.int64)


def _convolution(b: Backend, x: Any, w: Any, bias: Any, y: Any, numbers: Any) -> tuple[Any, ...]:
    sh, sw, top, left = (int(number) for number in b.to_host(numbers))
    sizes = tuple(tuple(map(int, a.shape[i : i + 2])) for a, i in ((x, 1), (w, 0), (y, 1)))
    geometry = Geometry(sizes[0], sizes[1], (sh, sw), (top, left), sizes[2])
    plan, cache = b.convolution(geometry, w.shape[2], w.shape[3]), Cache(b)
    X, W = plan.lift_input(x, cache, "X"), plan.lift_weight(w, cache, "W")
    Y = plan.lift_output(y, cache, "Y")
    return (
        plan.output(X, W, b.empty_images(y.shape)),
        plan.output(X, W, b.empty_images(y.shape), bias),
        plan.add_bias(Y, y, b.zeros(bias.shape)),
        plan.input(Y, W, b.empty_images(x.shape)),
        plan.add_weight(X, Y, b.zeros(w.shape)),
    )


def _convolution_draw(v: Values, n: int, m: int) -> tuple[Any, ...]:
    """Images, kernel, a gradient, and (stride, padding before), of drawn sizes."""
    kernel, stride, size = (tuple(v.rng.integers(1, k, 2)) for k in (6, 4, 9))
    top, left = (int(v.rng.integers(0, k)) for k in kernel)
    output = (
        int(v.rng.integers(1, (h + before - 1) // s + 2))
        for h, s, before in zip(size, stride, (top, left), strict=True)
    )
    batch, c_in, c_out = n % 5 + 1, m, n % 7 + 1
    numbers = np.array([*stride, top, left])
    images = v(batch, *size, c_in), v(*kernel, c_in, c_out), v(c_out), v(batch, *output, c_out)
    return *images, numbers


def _pool(b: Backend, x: Any, dy: Any, numbers: Any) -> tuple[Any, ...]:
    kh, kw, sh, sw, top, left = (int(number) for number in b.to_host(numbers))
    sizes = tuple(tuple(map(int, a.shape[1:3])) for a in (x, dy))
    geometry = Geometry(sizes[0], (kh, kw), (sh, sw), (top, left), sizes[1])
    y, winner = b.empty_images(dy.shape), b.empty_images(dy.shape)
    b.max_pool(x, geometry, y, winner)
    return y, winner, b.max_pool_backward(dy, winner, geometry, out=b.empty_images(x.shape))


def _pool_draw(v: Values, n: int, m: int) -> tuple[Any, ...]:
    x, w, _, y, (sh, sw, top, left) = _convolution_draw(v, n, m)
    numbers = np.array([*w.shape[:2], sh, sw, top, left])
    return x, v(*y.shape[:3], x.shape[3]), numbers


def _windows(b: Backend, x: Any) -> tuple[Any, ...]:
    def window(at: int, n: int) -> Any:
        return b.window(x, b.numbers(1, lambda: (at,)), n)

    half = len(x) // 2
    return window(0, len(x)), window(half, len(x) - half), window(len(x) - 1, 1)


def _products(_: Any, x: Any, w: Any, bias: Any, y: Any, numbers: Any) -> float:
    """The size of a sum of as many products as the longest sum here has."""
    largest = [max(1.0, float(np.abs(a).max())) for a in (x, w, y)]
    return max(w.size, y.size) ** 0.5 * max(a * b for a, b in combinations(largest, 2))


def _total(_: Any, *inputs: Any) -> float:
    return float(max(1.0, *(float(np.abs(x).sum()) for x in inputs)))


def _terms_of_mean(output: Any, x: Any, *_: Any) -> float:
    """A mean of terms that cancel is as exact as the terms' size lets it be."""
    return max(float(np.abs(output).max()), float(np.abs(x).mean(0).max()))


def _terms_of_sums(output: Any, dy: Any, x_hat: Any, *_: Any) -> float:
    """The same for the sums over rows, gamma's and beta's gradient; dx keeps its own size."""
    sums = np.abs(dy * x_hat).sum(0), np.abs(dy).sum(0)
    sizes = (output, *sums) if output.ndim == 1 else (output,)
    return max(float(np.abs(size).max()) for size in sizes)


OPERATIONS = {
    "column_sums": Operation(lambda v, n, m: (v(n, m),), _sums, scale=_total),
    "add_column_sums": Operation(lambda v, n, m: (v(n, m), v(m)), _add_sums, scale=_total),
    "matmul": Operation(
        lambda v, n, m: (v(n, m), v(m, 3)), lambda b, x, w: (b.matmul(x, w, b.empty((len(x), 3))),)
    ),
    "matmuls": Operation(
        lambda v, n, m: (v(5, n, m), v(5, m, 3)),
        lambda b, x, w: (b.matmuls(x, w, b.empty((5, x.shape[1], 3))),),
    ),
    "multiply": _elementwise("multiply", 2),
    "affine": Operation(
        lambda v, n, m: (v(n, m), v(m, 3), v(3)),
        lambda b, x, w, c: (b.affine(x, w, c, b.empty((len(x), 3))),),
    ),
    "matmul_add": Operation(
        lambda v, n, m: (v(n, m), v(n, 3), v(m, 3)),
        lambda b, x, dy, dw: (b.matmul_add(x.T, dy, dw),),
    ),
    "convolution": Operation(
        _convolution_draw, _convolution, scale=_products, flavours=("normal", "ties")
    ),
    "max_pool": Operation(_pool_draw, _pool, exact=True, flavours=("normal", "ties")),
    "leaky_factor": _elementwise("leaky_factor", 1, 0.2),
    "leaky": _elementwise("leaky", 1, 0.2),
    "leaky_backward": _elementwise("leaky_backward", 2, 0.2),
    "sigmoid": _elementwise("sigmoid", 1, exact=False),
    "sigmoid_backward": _elementwise("sigmoid_backward", 2),
    "tanh_backward": _elementwise("tanh_backward", 2),
    "maxout": Operation(lambda v, n, m: (v(n, 3, m), v(n, m)), _maxout, exact=True),
    "maxout_backward": Operation(lambda v, n, m: (v(n, 5, m), v(n, m)), _maxout, exact=True),
    "batch_norm": Operation(
        lambda v, n, m: (v(n, m), v(m), v(m)),
        _batch_norm,
        scale=_terms_of_mean,
        flavours=("normal", "ties"),
    ),
    "batch_norm_backward": Operation(
        lambda v, n, m: (v(n, m), v(n, m), v(m), v.positive(m), v(m), v(m)),
        _batch_norm_backward,
        scale=_terms_of_sums,
        flavours=("normal", "ties"),
    ),
    "move_statistics": Operation(
        lambda v, n, m: (v(m), v.positive(m), v(3, m)), _move_statistics, exact=True
    ),
    "bce_logits": Operation(lambda v, n, m: (v(n * m, 1), v.labels(n * m, 1)), _bce("bce_logits")),
    "bce_probabilities": Operation(_off_the_clip, _bce("bce_probabilities", 1e-7)),
    "sgd": Operation(lambda v, n, m: (v(n * m), v(n * m), v(n * m)), _sgd, exact=True),
    "adam": Operation(_adam_draw, _adam, exact=True),
    "uniforms": Operation(lambda v, n, m: (_words(v, n * m), v(n, m)), _uniforms, exact=True),
    "normals": Operation(lambda v, n, m: (_words(v, n * m + n * m % 2), v(n, m)), _normals),
    "integers": Operation(lambda v, n, m: (_words(v, n * m),), _integers, exact=True),
    "dropout_factor": Operation(_dropout_draw, _dropout, exact=True),
    "dropout": Operation(lambda *a: _dropout_draw(*a)[::-1], _whole_dropout, exact=True),
    "copy": _elementwise("copy", 1),
    "window": Operation(lambda v, n, m: (v.rng.integers(0, 9, n * m, np.int64),), _windows, True),
    "gather_images": Operation(_gather_draw, _gather, exact=True),
}

TALL = ("column_sums", "add_column_sums", "batch_norm", "batch_norm_backward")  # sum over many rows


def run(name: str, backend: Backend, seed: int, n: int, m: int, flavour: str) -> Any:
    """(outputs, inputs) of one operation, as NumPy arrays; inputs as they were before it."""
    operation = OPERATIONS[name]
    inputs = operation.draw(Values(seed, backend.dtype, flavour), n, m)
    outputs = operation.call(backend, *(backend.from_host(x) for x in inputs))
    return [backend.to_host(y) for y in outputs], inputs


def compare(
    name: str, backend: Backend, reference: Backend, seed: int, n: int, m: int, flavour: str
) -> None:
    """AssertionError unless both backends compute the same."""
    operation = OPERATIONS[name]
    if flavour not in operation.flavours:
        flavour = operation.flavours[0]
    with np.errstate(all="ignore"):
        given, inputs = run(name, backend, seed, n, m, flavour)
        expected, _ = run(name, reference, seed, n, m, flavour)
    bound = 2.0**-18 if backend.dtype == np.float32 else 2.0**-44
    for i, (a, b) in enumerate(zip(given, expected, strict=True)):
        where = f"{name}, output {i}, {backend.dtype}, {flavour}, seed {seed}, n {n}, m {m}"
        assert a.shape == b.shape, where
        assert a.dtype == b.dtype, where
        assert a.dtype in (backend.dtype, np.int64), where
        if operation.exact:
            np.testing.assert_array_equal(a, b, err_msg=where)
            continue
        assert np.isfinite(a).all(), where
        scale = operation.scale(b, *inputs) if operation.scale else np.abs(b).max()
        error = float(np.abs(a.astype(float) - b).max())
        assert error <= bound * max(scale, math.ulp(0.0)), f"{where}: error {error} of {scale}"
