"""What each kernel in kernels.cu does, in NumPy: function(blocks, threads in a block, *arguments).

Arrays come flat. A kernel that gives every element a thread does only as many elements as it was
given threads, so that a launch that is too small shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from standin import conv_kernels

MASK = (1 << 64) - 1


def set_numbers(grid: int, block: int, out: Any, at: int, count: int, *given: float) -> None:
    out[at : at + min(count, grid * block)] = given[:count]


def philox(
    grid: int, block: int, out: Any, n: int, step: Any, k0: Any, k1: Any, *counter: Any
) -> None:
    """In vectors of Python integers' arithmetic: independent of numpy.random's own code."""
    blocks = min(grid * block, -(-n // 8))
    counter = (*counter[:2], int(counter[2]) + int(step[0]) & MASK, counter[3])
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


def _unit(words: Any) -> Any:
    return (words + 0.5) * 2.0**-32


def uniforms(grid: int, block: int, words: Any, low: float, high: float, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = _unit(words[:n]) * (high - low) + low


def normals(grid: int, block: int, words: Any, scale: float, out: Any, n: int) -> None:
    n = min(n, 2 * grid * block)
    u = _unit(words[: n + n % 2]).reshape(-1, 2)
    z = np.sqrt(-2.0 * np.log(u[:, 0])) * scale * np.exp(2j * np.pi * u[:, 1])
    out[:n] = z.view(float)[:n]


def integers(grid: int, block: int, words: Any, high: int, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = words[:n].astype(np.int64) * high >> 32


def dropout_factor(
    grid: int, block: int, words: Any, q: int, scale: float, out: Any, n: int
) -> None:
    n = min(n, grid * block)
    out[:n] = np.where(words.view(np.uint8)[:n] < q, scale, 0.0)


def window(grid: int, block: int, x: Any, at: Any, out: Any, n: int) -> None:
    start, n = int(at[0]), min(n, grid * block)
    if not 0 <= start <= len(x) - n:
        raise RuntimeError("cudaErrorIllegalAddress: a window lies outside the array")
    out[:n] = x[start : start + n]


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


def leaky(grid: int, block: int, x: Any, slope: float, out: Any, n: int) -> None:
    leaky_backward(grid, block, x, x, slope, out, n)


def leaky_backward(grid: int, block: int, dy: Any, x: Any, slope: float, out: Any, n: int) -> None:
    n = min(n, grid * block)
    out[:n] = dy[:n] * np.where(np.signbit(x[:n]), slope, 1.0).astype(x.dtype)


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


def _tiles(grid: int, rows: int, columns: int, height: int) -> Any:
    """(which from above, its rows, its columns) of the tile of each block of threads."""
    across = -(-columns // 32)
    for block in range(grid):
        part, lane = block // across, block % across * 32
        yield part, slice(part * height, min(rows, (part + 1) * height)), slice(lane, lane + 32)


def column_sums(
    grid: int,
    block: int,
    x: Any,
    out: Any,
    rows: int,
    columns: int,
    height: int,
    add: int,
) -> None:
    matrix = x.reshape(rows, columns)
    for part, i, j in _tiles(grid, rows, columns, height):
        place = out[part * columns : (part + 1) * columns][j]
        place[...] = matrix[i, j].sum(axis=0, dtype=float) + (place if add else 0)


def _parts(sums: Any, rows: int, columns: int, height: int) -> Any:
    """The two sums of every tile, in float64, and the tiles' heights."""
    parts = -(-rows // height)
    sizes = np.minimum(height, rows - height * np.arange(parts))[:, None]
    return *sums.reshape(2, parts, columns).astype(float), sizes


def batch_norm_sums(
    grid: int, block: int, x: Any, sums: Any, rows: int, columns: int, height: int
) -> None:
    matrix, pair = x.reshape(rows, columns), sums.reshape(2, -1, columns)
    for part, i, j in _tiles(grid, rows, columns, height):
        tile = matrix[i, j].astype(float)
        pair[0, part, j], pair[1, part, j] = tile.mean(axis=0), tile.var(axis=0) * len(tile)


def batch_norm(
    grid: int,
    block: int,
    x: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    sums: Any,
    x_hat: Any,
    y: Any,
    stats: Any,
    rows: int,
    columns: int,
    height: int,
) -> None:
    matrix, normal, after = (a.reshape(rows, columns) for a in (x, x_hat, y))
    if height >= rows:
        mean, var = matrix.mean(axis=0, dtype=float), matrix.var(axis=0, dtype=float)
    else:
        means, squares, sizes = _parts(sums, rows, columns, height)
        mean = (means * sizes).sum(axis=0) / rows
        var = (squares + sizes * (means - mean) ** 2).sum(axis=0) / rows
    moments = np.stack([mean, var, 1 / np.sqrt(var + eps)]).astype(x.dtype)
    for part, i, j in _tiles(grid, rows, columns, height):
        normal[i, j] = (matrix[i, j] - moments[0, j]) * moments[2, j]
        after[i, j] = normal[i, j] * gamma[j] + beta[j]
        if part == 0:
            stats.reshape(3, columns)[:, j] = moments[:, j]


def batch_norm_backward_sums(
    grid: int,
    block: int,
    dy: Any,
    x_hat: Any,
    sums: Any,
    rows: int,
    columns: int,
    height: int,
) -> None:
    dy, x_hat = dy.reshape(rows, columns), x_hat.reshape(rows, columns)
    pair = sums.reshape(2, -1, columns)
    for part, i, j in _tiles(grid, rows, columns, height):
        pair[0, part, j] = (dy[i, j] * x_hat[i, j]).sum(axis=0, dtype=float)
        pair[1, part, j] = dy[i, j].sum(axis=0, dtype=float)


def batch_norm_backward(
    grid: int,
    block: int,
    dy: Any,
    x_hat: Any,
    gamma: Any,
    inv_std: Any,
    sums: Any,
    out: Any,
    d_gamma: Any,
    d_beta: Any,
    add: int,
    rows: int,
    columns: int,
    height: int,
) -> None:
    dy, x_hat = dy.reshape(rows, columns), x_hat.reshape(rows, columns)
    if height >= rows:
        products, sum_ = (dy * x_hat).sum(axis=0, dtype=float), dy.sum(axis=0, dtype=float)
    else:
        products, sum_ = (a.sum(axis=0) for a in _parts(sums, rows, columns, height)[:2])
    slope, level = (products / rows).astype(dy.dtype), (sum_ / rows).astype(dy.dtype)
    for part, i, j in _tiles(grid, rows, columns, height):
        rest = dy[i, j] - (x_hat[i, j] * slope[j] + level[j])
        out.reshape(rows, columns)[i, j] = rest * (gamma[j] * inv_std[j])
        if part == 0 and add:
            d_gamma[j] += products[j].astype(dy.dtype)
            d_beta[j] += sum_[j].astype(dy.dtype)


def move_statistics(
    grid: int, block: int, mean: Any, var: Any, stats: Any, momentum: float, n: int
) -> None:
    done, real = min(n, grid * block), mean.dtype.type
    for running, batch in ((mean, stats[:n]), (var, stats[n : 2 * n])):
        fresh = real(1 - momentum) * batch
        running[:done] = (running * real(momentum) + fresh)[:done]


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
    share: float,
    out: Any,
    loss: Any,
    n: int,
) -> None:
    t = target if soft else x.dtype.type(label)
    each = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    out[:n] = (_sigmoid(x) - t) * x.dtype.type(share / n)
    loss[0] = share * _block_sum(each, block) / n


def bce_probabilities(
    grid: int,
    block: int,
    x: Any,
    target: Any,
    soft: int,
    label: float,
    eps: float,
    share: float,
    out: Any,
    loss: Any,
    n: int,
) -> None:
    real, p = x.dtype.type, _sigmoid(x)
    t = target if soft else real(label)
    q = np.clip(p, real(eps), real(1 - eps))
    slope = np.where(q == p, (q - t) / (q * (1 - q)), 0)
    out[:n] = slope * (real(share) * p * (1 - p) / real(n))
    loss[0] = share * _block_sum(-(t * np.log(q) + (1 - t) * np.log1p(-q)), block) / n


def sgd(grid: int, block: int, theta: Any, grad: Any, velocity: Any, rates: Any, n: int) -> None:
    n = min(n, grid * block)
    lr, momentum = rates.astype(theta.dtype)
    velocity[:n] = velocity[:n] * momentum - grad[:n] * lr
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
    rates: Any,
    n: int,
) -> None:
    n, real = min(n, grid * block), theta.dtype.type
    rate, eps = rates.astype(theta.dtype)
    m[:n] = m[:n] * real(beta1) + grad[:n]
    v[:n] = v[:n] * real(beta2) + grad[:n] * grad[:n]
    theta[:n] -= m[:n] / (np.sqrt(v[:n]) + eps) * rate


EMULATIONS = {
    function.__name__: function
    for function in (
        set_numbers,
        philox,
        uniforms,
        normals,
        integers,
        dropout_factor,
        window,
        gather_images,
        leaky,
        leaky_backward,
        sigmoid,
        sigmoid_backward,
        tanh_backward,
        maxout,
        maxout_backward,
        column_sums,
        batch_norm_sums,
        batch_norm,
        batch_norm_backward_sums,
        batch_norm_backward,
        move_statistics,
        bce_logits,
        bce_probabilities,
        sgd,
        adam,
    )
}
EMULATIONS |= conv_kernels.EMULATIONS
