"""What each kernel in kernels.cu does, in NumPy: function(blocks, threads in a block, *arguments).

Arrays come flat. A kernel that gives every element a thread does only as many elements as it was
given threads, so that a launch that is too small shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MASK = (1 << 64) - 1


def philox(grid: int, block: int, out: Any, n: int, k0: Any, k1: Any, *counter: Any) -> None:
    """In vectors of Python integers' arithmetic: independent of numpy.random's own code."""
    blocks = min(grid * block, -(-n // 8))
    start = sum(int(word) << 64 * i for i, word in enumerate(counter))
    counts = [(start + 1 + i) % (1 << 256) for i in range(blocks)]
    c = [np.array([count >> 64 * i & MASK for count in counts], np.uint64) for i in range(4)]
    keys = [int(k0), int(k1)]
    for _ in range(10):
        high0, low0 = _multiply(0xD2E7470EE14C6C93, c[0])
        high2, low2 = _multiply(0xCA5A826395121157, c[2])
        c = [high2 ^ c[1] ^ np.uint64(keys[0]), low2, high0 ^ c[3] ^ np.uint64(keys[1]), low0]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & MASK, (keys[1] + 0xBB67AE8584CAA73B) & MASK]
    words = np.stack(c, axis=1).reshape(-1).astype("<u8").view(np.uint32)
    out[: min(n, len(words))] = words[:n]


def _multiply(a: int, b: Any) -> tuple[Any, Any]:
    """High and low 64 bits of a·b, by halves of 32 bits."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1 = np.uint64(a & 0xFFFFFFFF), np.uint64(a >> 32)
    b0, b1 = b & low, b >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    cross = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> half) + (cross >> half), np.uint64(a) * b


def dropout_factor(
    grid: int, block: int, words: Any, q: int, scale: float, out: Any, n: int
) -> None:
    n = min(n, grid * block)
    out[:n] = np.where(words.view(np.uint8)[:n] < q, scale, 0.0)


def gather_images(
    grid: int,
    block: int,
    images: Any,
    index: Any,
    scale: float,
    shift: float,
    out: Any,
    size: int,
    n: int,
) -> None:
    n = min(n, grid * block)
    if not (index >= 0).all() or not (index < len(images) // size).all():
        raise RuntimeError("cudaErrorIllegalAddress: an image index lies outside the data")
    picked = images.reshape(-1, size)[index].reshape(-1)[:n]
    real = out.dtype.type
    out[:n] = real(scale) * picked + real(shift)


def leaky_factor(grid: int, block: int, x: Any, slope: float, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = np.where(np.signbit(x[:n]), slope, 1.0)


def _sigmoid(x: Any) -> Any:
    real = x.dtype.type
    limit = real(80 if real is np.float32 else 700)
    return real(1) / (np.exp(np.minimum(-x, limit)) + real(1))


def sigmoid(grid: int, block: int, x: Any, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = _sigmoid(x[:n])


def sigmoid_backward(grid: int, block: int, dy: Any, y: Any, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = (1 - y[:n]) * y[:n] * dy[:n]


def tanh_backward(grid: int, block: int, dy: Any, y: Any, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = (1 - y[:n] * y[:n]) * dy[:n]


def maxout(grid: int, block: int, h: Any, out: Any, pieces: int, units: int, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = h.reshape(-1, pieces, units).max(axis=1).reshape(-1)[:n]


def maxout_backward(
    grid: int, block: int, dy: Any, h: Any, y: Any, out: Any, pieces: int, units: int, n: int
) -> None:
    assert grid * block >= n, "not emulated: a launch that is too small"
    hit = h.reshape(-1, pieces, units) == y.reshape(-1, 1, units)
    first = hit & (np.cumsum(hit, axis=1) == 1)
    out[:] = np.where(first, dy.reshape(-1, 1, units), 0.0).reshape(-1)


def column_sums(grid: int, block: int, x: Any, out: Any, rows: int, columns: int, add: int) -> None:
    columns_done = min(columns, 32 * grid)
    matrix, groups = x.reshape(rows, columns), block // 32
    total = np.zeros(columns, x.dtype)
    for group in range(groups):  # in the kernel's own order, for the kernel's own bits
        part = np.zeros(columns, x.dtype)
        for row in matrix[group::groups]:
            part += row
        total = part if group == 0 else total + part
    total = out + total if add else total
    out[:columns_done] = total[:columns_done]


def _block_sum(values: Any, block: int) -> float:
    part = np.zeros(block)
    for start in range(0, len(values), block):
        chunk = values[start : start + block]
        part[: len(chunk)] += chunk
    while len(part) > 1:
        half = len(part) // 2
        part = part[:half] + part[half:]
    return float(part[0])


def bce_logits(
    grid: int,
    block: int,
    x: Any,
    target: Any,
    soft: int,
    label: float,
    out: Any,
    loss: Any,
    n: int,
) -> None:
    t = target if soft else x.dtype.type(label)
    each = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    out[:n] = _sigmoid(x) - t
    loss[0] = _block_sum(each, block) / n


def bce_probabilities(
    grid: int,
    block: int,
    p: Any,
    target: Any,
    soft: int,
    label: float,
    eps: float,
    out: Any,
    loss: Any,
    n: int,
) -> None:
    real = p.dtype.type
    t = target if soft else real(label)
    q = np.clip(p, real(eps), real(1 - eps))
    out[:n] = np.where(q == p, (q - t) / (q * (1 - q)), 0)
    loss[0] = _block_sum(-(t * np.log(q) + (1 - t) * np.log1p(-q)), block) / n


def sgd(
    grid: int, block: int, theta: Any, grad: Any, velocity: Any, lr: float, mu: float, n: int
) -> None:
    n, real = min(n, grid * block), theta.dtype.type
    velocity[:n] = velocity[:n] * real(mu) - grad[:n] * real(lr)
    theta[:n] += velocity[:n]


def adam(
    grid: int,
    block: int,
    theta: Any,
    grad: Any,
    m: Any,
    v: Any,
    beta1: float,
    beta2: float,
    rate: float,
    eps: float,
    n: int,
) -> None:
    n, real = min(n, grid * block), theta.dtype.type
    m[:n] = m[:n] * real(beta1) + grad[:n]
    v[:n] = v[:n] * real(beta2) + grad[:n] * grad[:n]
    theta[:n] -= m[:n] / (np.sqrt(v[:n]) + real(eps)) * real(rate)


EMULATIONS = {
    function.__name__: function
    for function in (
        philox,
        dropout_factor,
        gather_images,
        leaky_factor,
        sigmoid,
        sigmoid_backward,
        tanh_backward,
        maxout,
        maxout_backward,
        column_sums,
        bce_logits,
        bce_probabilities,
        sgd,
        adam,
    )
}
