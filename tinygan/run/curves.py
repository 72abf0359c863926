"""losses.png: both losses, D(x) and D(G(z)), beside their values at the equilibrium."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygan.run.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

D_COLOUR, G_COLOUR, GREY = "#1f5fa8", "#c8502d", "#555555"
MOST_POINTS = 2000  # raw points drawn of a long run
LOG_2, LOG_4 = math.log(2.0), math.log(4.0)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running mean over about `width` values; at both ends, over those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    i = np.arange(len(values))
    first, end = np.maximum(i - width // 2, 0), np.minimum(i + width // 2 + 1, len(values))
    return np.asarray((sums[end] - sums[first]) / (end - first))


def loss_lines(halved: bool, objective: str) -> list[tuple[float, str]]:
    """Where the losses stand when D(x) = D(G(z)) = 1/2, with the words for each line.

    D's loss is then log 4, the value -C(G) at its least [game.3], or half of that where it is
    halved; G's is log 2, or -log 2 if minimax.
    """
    d_lines = (
        [(LOG_4, "log 4: 2 × loss of D"), (LOG_2, "log 2: D")] if halved else [(LOG_4, "log 4: D")]
    )
    if objective == "minimax":
        return [*d_lines, (-LOG_2, "\N{MINUS SIGN}log 2: G")]
    return [d_lines[0], (LOG_2, "log 2: D and G" if halved else "log 2: G")]


def write_curves(
    path: Path, metrics: dict[str, list[float]], *, halved: bool, objective: str, title: str
) -> None:
    """Draw the columns of metrics.csv (see `read_metrics`) into a PNG, atomically.

    `halved` says that D's loss is (real + fake) / 2, whose equilibrium is log 2 instead of log 4.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import: when it is used
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global changes, no display is needed
    losses, outputs = figure.subplots(2, 1, sharex=True)
    losses.set_title(title, loc="left", fontsize=11, color=GREY)
    _draw(losses, metrics, ("d_loss", "loss of D"), ("g_loss", "loss of G"))
    for level, words in loss_lines(halved, objective):
        _level(losses, level, words)
    _frame_losses(losses, metrics, [level for level, _ in loss_lines(halved, objective)])
    losses.set_ylabel("loss")
    _draw(outputs, metrics, ("d_real", "D(x), real"), ("d_fake", "D(G(z)), generated"))
    _level(outputs, 0.5, "½: D cannot tell")
    outputs.set_ylim(0, 1)
    outputs.set_ylabel("mean output of D")
    outputs.set_xlabel("step (one update of G)")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def _draw(axes: Axes, metrics: dict[str, list[float]], *columns: tuple[str, str]) -> None:
    steps = np.array(metrics["step"])
    stride = max(1, len(steps) // MOST_POINTS)
    for (name, label), colour in zip(columns, (D_COLOUR, G_COLOUR), strict=True):
        values = np.array(metrics[name])
        mean = smooth(values, len(values) // 60)
        axes.plot(steps[::stride], values[::stride], color=colour, alpha=0.22, linewidth=0.7)
        axes.plot(steps, mean, color=colour, linewidth=1.6, label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.margins(x=0.01)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    above = (1.0, 0.99)  # where it hides no curve
    axes.legend(loc="lower right", bbox_to_anchor=above, frameon=False, ncols=2, fontsize=9)


def _level(axes: Axes, level: float, words: str) -> None:
    axes.axhline(level, color=GREY, linestyle=(0, (5, 4)), linewidth=0.9, zorder=1.5)
    place = axes.get_yaxis_transform()  # x in parts of the panel, y in data
    axes.text(1.005, level, words, transform=place, va="center", fontsize=8, color=GREY)


def _frame_losses(axes: Axes, metrics: dict[str, list[float]], levels: Sequence[float]) -> None:
    """Let a few wild readings (the first steps, mostly) leave the panel rather than flatten it."""
    values = np.array([*metrics["d_loss"], *metrics["g_loss"]])
    low, high = np.percentile(values, [0.5, 99.5]) if len(values) else (0.0, 1.0)
    low, high = min(low, *levels, 0.0), max(high, *levels)
    axes.set_ylim(low - 0.03 * (high - low), high + 0.15 * (high - low))
