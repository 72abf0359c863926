"""Convolutions to test: drawn geometries, and references of seven loops in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinygan.backend import Backend
from tinygan.backend import convolution as direct
from tinygan.backend.geometry import Geometry, Padding, Pair
from tinygan.backend.row_convolution import RowConvolution

kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))
channels = st.integers(1, 3)
batches = st.sampled_from([1, 2, 3])


@st.composite
def paddings(draw: Any, kernel: Pair) -> Padding:
    """SAME, VALID, one number, or a pair of numbers for each axis."""
    kind = draw(st.sampled_from(["SAME", "VALID", "number", "pairs"]))
    if kind == "number":
        return draw(st.integers(0, min(kernel) - 1))
    if kind == "pairs":
        return tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel)
    return kind


@st.composite
def conv_options(draw: Any) -> tuple[Pair, Pair, Pair, Padding]:
    """(size, kernel, stride, padding) of a convolution that has an output."""
    kernel, stride = draw(kernels), draw(strides)
    padding = draw(paddings(kernel))
    least = kernel if padding == "VALID" else (1, 1)
    if isinstance(padding, int):
        least = tuple(k - 2 * padding for k in kernel)
    elif isinstance(padding, tuple):
        least = tuple(k - sum(p) for k, p in zip(kernel, padding, strict=True))
    size = tuple(draw(st.integers(max(1, low), max(1, low) + 6)) for low in least)
    return size, kernel, stride, padding


@st.composite
def transposed_options(draw: Any) -> tuple[Pair, Pair, Pair, Padding, Pair | None]:
    """(size, kernel, stride, padding, output padding) of a transposed one that has an output."""
    kernel, stride = draw(kernels), draw(strides)
    padding = draw(paddings(kernel))
    extra = None
    if not isinstance(padding, str) and draw(st.booleans()):
        extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    if not isinstance(padding, str):  # enough pixels that something is left
        pairs = ((padding, padding),) * 2 if isinstance(padding, int) else padding
        size = tuple(
            max(n, 1 - -(1 + sum(p) - k) // s)
            for n, p, k, s in zip(size, pairs, kernel, stride, strict=True)
        )
    return size, kernel, stride, padding, extra


# ---- seven loops ---------------------------------------------------------------------------------


def terms(g: Geometry, n: int, c_in: int, c_out: int) -> Any:
    """The indices of every product x·w·y of the trilinear form."""
    (H, W), (kh, kw), (sh, sw), (top, left), (P, Q) = g
    for i in range(n):
        for p in range(P):
            for q in range(Q):
                for a in range(kh):
                    for b in range(kw):
                        h, v = p * sh + a - top, q * sw + b - left
                        if 0 <= h < H and 0 <= v < W:
                            for c in range(c_in):
                                for o in range(c_out):
                                    yield (i, h, v, c), (a, b, c, o), (i, p, q, o)


def by_loops(g: Geometry, x: Any, w: Any, y: Any) -> tuple[Any, Any, Any]:
    """dT/dy, dT/dx and dT/dw."""
    of_y, of_x, of_w = np.zeros(y.shape), np.zeros(x.shape), np.zeros(w.shape)
    for at_x, at_w, at_y in terms(g, len(x), *w.shape[2:]):
        of_y[at_y] += x[at_x] * w[at_w]
        of_x[at_x] += y[at_y] * w[at_w]
        of_w[at_w] += x[at_x] * y[at_y]
    return of_y, of_x, of_w


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def arrays(g: Geometry, n: int, c_in: int, c_out: int, seed: int = 0) -> list[Any]:
    """x, w and y of a geometry."""
    x, w, y = (n, *g.input, c_in), (*g.kernel, c_in, c_out), (n, *g.output, c_out)
    return drawn(seed, x, w, y)


# ---- the ways to compute it ----------------------------------------------------------------------


class ByPixel(direct.DirectConvolution):
    """im2col as it is for many channels."""

    def __init__(self, backend: Backend, g: Geometry, c_in: int, c_out: int) -> None:
        super().__init__(backend, g, c_in, c_out)
        self.by_channel = False


class ByChannel(direct.DirectConvolution):
    """im2col as it is for few channels."""

    def __init__(self, backend: Backend, g: Geometry, c_in: int, c_out: int) -> None:
        super().__init__(backend, g, c_in, c_out)
        self.by_channel = True


PLANS: dict[str, Any] = {
    "chosen": None,
    "by channel": ByChannel,
    "by pixel": ByPixel,
    "by rows": RowConvolution,
}
ways = st.sampled_from(list(PLANS))


def with_plan(backend: Backend, way: str) -> Backend:
    """The backend, made to compute its convolutions in this way."""
    kind = PLANS[way]
    if kind is RowConvolution and backend.image_axes != (1, 2, 0):
        return backend  # it is made for that order in memory
    if kind is not None:
        backend._plan = lambda g, c_in, c_out: kind(backend, g, c_in, c_out)
    return backend


def derivatives(backend: Backend, g: Geometry, x: Any, w: Any, y: Any) -> tuple[Any, Any, Any]:
    """dT/dy, dT/dx and dT/dw as the backend's plan gives them; all outputs begin as NaN or one."""
    from tinygan.nn import Cache

    plan, cache = backend.convolution(g, *w.shape[2:]), Cache(backend, check=True)
    X = plan.lift_input(backend.from_host(x), cache, "X")
    W = plan.lift_weight(backend.from_host(w), cache, "W")
    Y = plan.lift_output(backend.from_host(y), cache, "Y")
    of_y, of_x = backend.empty_images(y.shape), backend.empty_images(x.shape)
    of_w = backend.zeros(w.shape) + 1.0
    for out in (of_y, of_x):
        out.fill(float("nan"))
    results = plan.output(X, W, of_y), plan.input(Y, W, of_x), plan.add_weight(X, Y, of_w)
    of_y, of_x, of_w = (backend.to_host(a) for a in results)
    return of_y, of_x, of_w - 1.0
