"""Figures that need no screen and leave nothing global behind, as PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tinygan.run.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: int = 100, **rest: Any) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import: when it is used
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, **rest)
    FigureCanvasAgg(figure)  # no pyplot: nothing global changes
    return figure


def save_figure(figure: Figure, path: Path) -> np.ndarray:
    """Write it as a PNG, atomically; its pixels, uint8 (H, W, 3)."""
    canvas: Any = figure.canvas
    canvas.draw()
    picture: np.ndarray = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    write_bytes(path, content.getvalue())
    return picture
