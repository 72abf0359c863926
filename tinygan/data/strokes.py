"""Handwritten-looking digits, drawn: spline skeletons, randomly deformed, inked by a soft pen.

Every image is a function of (seed, split, index): no files, no network, known factors.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from tinygan.data.dataset import Dataset
from tinygan.errors import DataError

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

# Ways of writing each digit: strokes split by "/", control points "x,y" in a box 100 wide and high,
# y downwards. A smooth spline passes through them; equal points are one point, and strokes meeting
# in it stay joined however they are deformed; a corner is where one stroke ends and another begins.
STYLES: tuple[tuple[str, ...], ...] = (
    (  # 0
        "55,0 25,12 8,50 25,90 50,100 78,85 92,48 78,12 55,0",
        "70,6 45,0 14,25 10,65 35,100 72,88 92,50 80,12 52,3 45,9",
        "48,2 22,20 12,60 35,98 68,90 86,48 72,8 48,2",
    ),
    (  # 1
        "50,0 50,35 50,70 50,100",
        "45,0 50,35 54,70 50,100",
        "52,0 50,50 48,100",
        "30,22 42,12 52,0 / 52,0 51,50 50,100",
        "30,20 43,12 52,0 / 52,0 51,50 50,98 / 25,99 50,98 76,97",
    ),
    (  # 2
        "12,25 28,4 60,0 80,22 68,52 38,80 10,98 / 10,98 50,95 92,96",
        "10,22 35,0 70,8 75,35 50,70 24,90 12,80 30,72 58,88 92,96",
        "8,18 40,0 75,12 70,45 42,78 18,96 10,82 28,78 55,94 95,90",
        "15,15 45,0 78,15 72,48 45,75 15,97 / 15,97 35,88 60,98 95,92",
    ),
    (  # 3
        "15,12 42,0 72,10 68,35 38,46 / 38,46 72,52 85,75 58,98 12,90",
        "12,14 45,0 78,14 66,38 40,48 66,52 84,72 64,96 34,100 8,86",
        "15,5 50,0 76,14 62,40 35,50 70,55 80,80 50,100 10,94",
    ),
    (  # 4
        "22,2 18,30 14,56 / 14,56 50,58 90,52 / 76,0 72,50 66,100",
        "25,0 14,30 20,54 50,58 76,46 / 80,2 76,46 70,100",
        "62,0 38,32 8,66 / 8,66 50,66 94,62 / 62,0 60,50 58,100",
    ),
    (  # 5
        "85,2 55,3 28,5 / 28,5 24,25 20,45 / 20,45 50,36 80,55 76,84 45,100 10,92",
        "30,4 25,25 22,42 / 22,42 54,38 80,60 66,92 36,100 10,88 / 30,4 60,5 92,0",
        "90,4 60,0 36,10 26,30 36,45 66,52 76,76 54,98 14,94",
    ),
    (  # 6
        "66,0 36,22 16,58 24,92 54,100 78,80 66,58 40,58 20,80",
        "50,0 26,32 18,70 38,98 68,94 78,70 58,56 34,66 24,82",
        "76,4 44,14 18,50 20,86 48,100 76,84 70,62 44,60 22,76",
    ),
    (  # 7
        "10,8 45,6 86,4 / 86,4 66,38 50,68 42,100",
        "10,14 12,4 48,6 84,4 / 84,4 60,45 46,100",
        "10,8 45,6 84,4 / 84,4 62,45 44,100 / 30,52 52,50 78,47",
        "8,16 30,2 60,10 84,6 72,34 54,64 46,100",
    ),
    (  # 8
        "72,14 46,0 24,18 40,42 68,60 74,86 46,100 22,82 38,56 64,38 78,18 66,6",
        "50,46 24,28 34,4 62,2 76,22 50,46 22,72 36,98 66,96 76,72 50,46",
        "80,8 48,0 26,20 44,42 70,64 62,96 32,96 26,70 52,46 80,20 80,8",
    ),
    (  # 9
        "76,14 48,2 22,22 26,46 52,48 74,28 78,12 / 78,12 74,50 66,100",
        "74,24 54,0 24,14 24,42 52,48 74,24 78,50 70,82 40,100 18,92",
        "72,12 44,4 20,30 38,52 66,38 76,10 72,44 56,100",
    ),
)
EDGE = 1.25  # pixels from full ink to none
INK = 64  # points along each skeleton
REACH = 0.35  # of the box: how far a jitter spreads
SIDE, BOX = 28, 20.0  # pixels; as MNIST: the digit fits the box, and its centre of mass is centred
SPLITS = ("train", "test")
BLOCK = 250  # images drawn at once: small enough for the processor's cache


def strokes(n: int = 60_000, seed: int = 0, split: str = "train") -> Dataset:
    """`n` drawn digits: uint8 (n, 28, 28, 1), 0 background to 255 ink; labels uint8 (n,).

    Deterministic in (seed, split), and the first images of a longer set. `factors`, each (n,):
    style (row of STYLES[label]), slant (shear, positive leans right), thickness (of the pen,
    pixels), scale (1: the longer side is 20 pixels), dx and dy (where the skeleton's centre of
    mass is, pixels right of and below the image's centre), wobble (deviation from the skeleton,
    1 is typical), width (over height), turn (radians, clockwise). Every caller shares the arrays,
    which are read-only. Raises DataError.
    """
    if n < 1:
        raise DataError(f"strokes needs n >= 1 images, got {n}")
    if not 0 <= seed < 2**64:
        raise DataError(f"strokes needs 0 <= seed < 2**64, got {seed}")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    return _strokes(n, seed, split)


@functools.lru_cache(maxsize=2)
def _strokes(n: int, seed: int, split: str) -> Dataset:
    blocks = [_block(seed, SPLITS.index(split), i) for i in range(-(-n // BLOCK))]
    images = np.concatenate([image for image, _ in blocks])[:n, :, :, None]
    factors = {key: np.concatenate([f[key] for _, f in blocks])[:n] for key in blocks[0][1]}
    for array in (images, *factors.values()):
        array.setflags(write=False)  # shared by every caller
    return Dataset("strokes", images, factors.pop("label"), factors)


def _block(seed: int, split: int, block: int) -> tuple[NDArray[np.uint8], dict[str, Array]]:
    """Images (BLOCK, 28, 28) and factors number `block`, always whole: rounding too is fixed."""
    skeleton, bend = _skeletons()
    uniform, normal = _draws(seed, split, block, 8 + 2 * bend.shape[2])
    label = (uniform[:, 0] * 10).astype(np.uint8)
    count = np.array([len(styles) for styles in STYLES])
    style = (uniform[:, 1] * count[label]).astype(np.uint8)
    row = np.cumsum(count)[label] - count[label] + style
    slant = 0.2 + 0.25 * normal[:, 0]
    thickness = 2.6 * np.exp(0.24 * normal[:, 1])
    scale = 1 + 0.03 * normal[:, 2]
    dx, dy = 0.4 * normal[:, 3], 0.4 * normal[:, 4]
    wobble = np.exp(0.25 * normal[:, 5])
    width = 0.8 * np.exp(0.2 * normal[:, 6])
    turn = 0.08 * normal[:, 7]

    jitter = 0.065 * wobble[:, None, None] * normal[:, 8:].reshape(BLOCK, -1, 2)
    x, y = np.moveaxis(skeleton[row] + bend[row] @ jitter, 2, 0)
    x = width[:, None] * x - slant[:, None] * y
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = cos * x - sin * y, sin * x + cos * y  # clockwise, for y points down
    # its place: the longer side fills the box, pen included; the centre of mass goes to the centre
    size = scale * (BOX - thickness) / np.maximum(np.ptp(x, axis=1), np.ptp(y, axis=1))
    x = size[:, None] * (x - x.mean(1, keepdims=True)) + (SIDE - 1) / 2 + dx[:, None]
    y = size[:, None] * (y - y.mean(1, keepdims=True)) + (SIDE - 1) / 2 + dy[:, None]
    images = _ink(*(a.astype(np.float32) for a in (x, y, thickness)))
    factors = {"label": label, "style": style, "slant": slant, "thickness": thickness}
    factors |= {"scale": scale, "dx": dx, "dy": dy, "wobble": wobble, "width": width, "turn": turn}
    return images, factors


def _draws(seed: int, split: int, block: int, columns: int) -> tuple[Array, Array]:
    """Uniform (BLOCK, 2) in (0, 1) and normal (BLOCK, columns), within 2.5 standard deviations."""
    # counter-based, so that a block can be drawn alone; raw words, whose stream never changes
    key, counter = np.array([seed, split], np.uint64), np.array([0, block, 0, 0], np.uint64)
    philox = np.random.Philox(key=key, counter=counter)
    words = philox.random_raw(BLOCK * (2 + columns)).reshape(BLOCK, -1)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.split(uniform[:, 2:], 2, axis=1)
    radius, angle = np.sqrt(-2 * np.log(radius)), 2 * np.pi * angle
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return uniform[:, :2], np.clip(normal, -2.5, 2.5)


def _ink(x: Floats, y: Floats, thickness: Floats) -> NDArray[np.uint8]:
    """Grey levels (N, SIDE, SIDE) of a pen `thickness` pixels wide along points (N, INK).

    The distance d to the path is a soft minimum, d^2 = -2 s^2 log sum_k w exp(-d_k^2 / 2 s^2), and
    exp(-d_k^2) splits into a factor of the row and one of the column: a matrix product.
    """
    s = np.float32(0.7)
    pixel = np.arange(SIDE, dtype=np.float32)
    across = np.exp(-0.5 * ((pixel - x[:, :, None]) / s) ** 2)  # (N, INK, SIDE)
    down = np.exp(-0.5 * ((pixel - y[:, :, None]) / s) ** 2)
    spacing = np.median(np.hypot(np.diff(x), np.diff(y)), axis=1)
    weight = spacing / (s * math.sqrt(2 * math.pi))  # a long straight path then has d = 0 on itself
    density = weight[:, None, None] * (down.transpose(0, 2, 1) @ across)
    distance = s * np.sqrt(np.maximum(-2 * np.log(density + 1e-30), 0))
    ink: Floats = np.clip((thickness[:, None, None] / 2 - distance) / EDGE + 0.5, 0, 1)
    return (255 * ink + 0.5).astype(np.uint8)


@functools.cache
def _skeletons() -> tuple[Array, Array]:
    """All styles in the order of STYLES: skeletons (S, INK, 2) and how they bend (S, INK, P).

    A spline is linear in its control points, so that skeleton + bend @ jitter is again one.
    """
    skeletons, bends = [], []
    for basis, controls in (_spline(style) for styles in STYLES for style in styles):
        # neighbouring control points move together, over REACH: else their jitter looks shaky
        apart = np.linalg.norm(controls[:, None] - controls, axis=2)
        kernel = np.exp(-((apart / REACH) ** 2))
        kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
        skeletons.append(basis @ controls)
        bends.append(basis @ kernel)
    most = max(bend.shape[1] for bend in bends)
    padded = [np.pad(bend, ((0, 0), (0, most - bend.shape[1]))) for bend in bends]
    return np.stack(skeletons), np.stack(padded)


def _spline(style: str) -> tuple[Array, Array]:
    """One style's basis (INK, P) and control points (P, 2), by Catmull-Rom splines."""
    paths = [part.split() for part in style.split("/")]
    points = list(dict.fromkeys(point for path in paths for point in path))
    controls = np.array([point.split(",") for point in points], float) / 100 - 0.5
    one_hot = dict(zip(points, np.eye(len(points)), strict=True))
    t = np.linspace(0, 1, 50)[:, None]
    weights = (2 * t**2 - t - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    rows, lengths = [], []
    for path in paths:
        p = np.stack([one_hot[point] for point in path])
        closed = path[0] == path[-1]
        first, last = (p[-2], p[1]) if closed else (2 * p[0] - p[1], 2 * p[-1] - p[-2])
        p = np.concatenate([first[None], p, last[None]])
        for i in range(len(p) - 3):
            rows.append(sum(w * p[i + j] for j, w in enumerate(weights)) / 2)
            step = np.diff(rows[-1] @ controls, axis=0, prepend=(rows[-1] @ controls)[:1])
            lengths.append(np.hypot(*step.T))
    travelled = np.cumsum(np.concatenate(lengths))
    even = (np.arange(INK) + 0.5) / INK * travelled[-1]
    return np.concatenate(rows)[np.searchsorted(travelled, even)], controls
