"""What each kernel in convolution.cu does, in NumPy; see kernels.py.

Indices are computed here anew, for all threads at once; the library's own geometry is not asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _coordinates(threads: int, n: int, *sizes: int) -> list[Any]:
    """The coordinates of indices below n, one for each thread; the first axis is open."""
    index = np.arange(min(threads, n))
    found = []
    for size in reversed(sizes):
        index, coordinate = np.divmod(index, size)
        found.append(coordinate)
    return [index, *reversed(found)]


def im2col(
    grid: int, block: int, x: Any, patches: Any,
    H: int, W: int, kh: int, kw: int, sh: int, sw: int, top: int, left: int,
    P: int, Q: int, C: int, n: int,
) -> None:  # fmt: skip
    i, p, q, b, c = _coordinates(grid * block, n, P, Q, kw, C)
    w = q * sw + b - left
    for a in range(kh):
        h = p * sh + a - top
        inside = (h >= 0) & (h < H) & (w >= 0) & (w < W)
        pixel = np.where(inside, ((i * H + h) * W + w) * C + c, 0)
        at = ((((i * P + p) * Q + q) * kh + a) * kw + b) * C + c
        patches[at] = np.where(inside, x[pixel], 0)


def _taps(i: Any, h: Any, w: Any, numbers: tuple[int, ...]) -> Any:
    """(place, which pixels some window sees there, that window (n, p, q) as one number)."""
    kh, kw, sh, sw, top, left, P, Q = numbers
    for a in range(kh):
        for b in range(kw):
            p, row_left = np.divmod(h + top - a, sh)
            q, column_left = np.divmod(w + left - b, sw)
            seen = (row_left == 0) & (column_left == 0)
            seen &= (p >= 0) & (p < P) & (q >= 0) & (q < Q)
            yield a * kw + b, seen, np.where(seen, (i * P + p) * Q + q, 0)


def col2im(
    grid: int, block: int, patches: Any, out: Any,
    H: int, W: int, kh: int, kw: int, sh: int, sw: int, top: int, left: int,
    P: int, Q: int, C: int, n: int,
) -> None:  # fmt: skip
    i, h, w, c = _coordinates(grid * block, n, H, W, C)
    total = np.zeros(len(i), out.dtype)
    for place, seen, window in _taps(i, h, w, (kh, kw, sh, sw, top, left, P, Q)):
        total += np.where(seen, patches[(window * kh * kw + place) * C + c], 0)
    out[: len(i)] = total


def max_pool(
    grid: int, block: int, x: Any, y: Any, winner: Any,
    H: int, W: int, kh: int, kw: int, sh: int, sw: int, top: int, left: int,
    P: int, Q: int, C: int, n: int,
) -> None:  # fmt: skip
    i, p, q, c = _coordinates(grid * block, n, P, Q, C)
    places = np.arange(kh * kw)[:, None]
    h, w = p * sh - top + places // kw, q * sw - left + places % kw
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W)
    pixel = np.where(inside, ((i * H + h) * W + w) * C + c, 0)
    values = np.where(inside, x[pixel], -np.inf)
    y[: len(i)] = values.max(axis=0)
    ranked = np.where(np.isnan(values), -np.inf, values)  # a NaN takes the window, not the place
    before = np.cumsum(np.isnan(values), axis=0) > 0
    winner[: len(i)] = np.where(before, -np.inf, ranked).argmax(axis=0)


def max_pool_backward(
    grid: int, block: int, dy: Any, winner: Any, out: Any,
    H: int, W: int, kh: int, kw: int, sh: int, sw: int, top: int, left: int,
    P: int, Q: int, C: int, n: int,
) -> None:  # fmt: skip
    i, h, w, c = _coordinates(grid * block, n, H, W, C)
    total = np.zeros(len(i), out.dtype)
    for place, seen, window in _taps(i, h, w, (kh, kw, sh, sw, top, left, P, Q)):
        won = seen & (winner[window * C + c] == place)
        total += np.where(won, dy[window * C + c], 0)
    out[: len(i)] = total


EMULATIONS = {f.__name__: f for f in (im2col, col2im, max_pool, max_pool_backward)}
