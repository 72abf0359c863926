"""Grids of samples and the animation made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tinygan.errors import ShapeError, TinyganError
from tinygan.run.atomic import write_bytes

GAP = 1  # pixels between two tiles; none around the grid
MAX_FRAMES = 120


def to_bytes(images: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Images in `value_range`, any float dtype, as uint8; values outside are clipped, NaN is 0."""
    low, high = value_range
    scaled = (np.nan_to_num(np.asarray(images, np.float64), nan=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def tile(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The first rows*columns of uint8 images (N, H, W, C) as one picture, GAP black pixels apart.

    Fewer images leave the last tiles black. Raises ShapeError unless C is 1 or 3.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ShapeError(f"samples: expected shape (N, H, W, 1 or 3), given {images.shape}")
    shown, (rows, columns) = images[: grid[0] * grid[1]], grid
    _, height, width, channels = shown.shape
    tiles = np.zeros((rows * columns, height + GAP, width + GAP, channels), np.uint8)
    tiles[: len(shown), :height, :width] = shown
    tiles = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    whole = tiles.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return np.ascontiguousarray(whole[:-GAP, :-GAP])


def write_grid(
    path: Path, images: np.ndarray, grid: tuple[int, int], value_range: tuple[float, float]
) -> np.ndarray:
    """Write float images (N, H, W, C) in `value_range` as one PNG, atomically; the picture."""
    picture = tile(to_bytes(images, value_range), grid)
    content = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(content, "PNG")
    write_bytes(path, content.getvalue())
    return picture


def write_animation(folder: Path, path: Path) -> int:
    """Make an endless GIF of the sample grids step_*.png in `folder`; returns its frame count.

    Long runs are thinned evenly to MAX_FRAMES, first and last kept; the last one stands still for
    two seconds. Raises TinyganError when a grid cannot be read.
    """
    grids = sorted(folder.glob("step_*.png"))
    if len(grids) > MAX_FRAMES:
        places = np.linspace(0, len(grids) - 1, MAX_FRAMES).round().astype(int)
        grids = [grids[i] for i in places]
    if not grids:
        return 0
    frames = [_frame(grid) for grid in grids]
    content = io.BytesIO()
    durations = [100] * (len(frames) - 1) + [2000]
    frames[0].save(
        content, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    write_bytes(path, content.getvalue())
    return len(frames)


def _frame(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            scale = 2 if picture.width < 200 else 1  # larger ones would make too large a file
            size = (picture.width * scale, picture.height * scale)
            frame: Image.Image = picture.resize(size, Image.Resampling.NEAREST)
            return frame
    except OSError as problem:
        raise TinyganError(f"cannot read the sample grid {path}: {problem}") from problem
