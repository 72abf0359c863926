"""losses.png: how a run went, beside where it would stand at the equilibrium.

How to read it: docs/reading-the-curves.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygan.gan.objectives import CROSS_ENTROPIES
from tinygan.run.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

D_COLOUR, G_COLOUR, THIRD, GREY = "#1f5fa8", "#c8502d", "#4a8a55", "#555555"
MOST_POINTS = 2000  # raw points drawn of a long run
LOG_2, LOG_4 = math.log(2.0), math.log(4.0)
MINUS = "\N{MINUS SIGN}"

Metrics = dict[str, list[float]]
Level = tuple[float, str]


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running mean over about `width` values; at both ends, over those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    i = np.arange(len(values))
    first, end = np.maximum(i - width // 2, 0), np.minimum(i + width // 2 + 1, len(values))
    return np.asarray((sums[end] - sums[first]) / (end - first))


def loss_lines(halved: bool, objective: str, real_target: float = 1.0) -> list[Level]:
    """Where the losses stand when generated samples are as the data, with the words for each.

    Cross-entropies: D's loss is log 4, the value -C(G) at its least [game.3], or half of that
    where it is halved; G's is log 2, or -log 2 if minimax. Others: [monitor.9].
    """
    if objective == "wgan":
        return [(0.0, "0: no difference")]
    if objective == "hinge":
        return [(2.0, "2: D")]
    if objective == "lsgan":
        return _least_squares_lines(halved, real_target)
    if real_target != 1.0:
        return _smoothed_lines(halved, objective, real_target)
    d_lines = (
        [(LOG_4, "log 4: 2 × loss of D"), (LOG_2, "log 2: D")] if halved else [(LOG_4, "log 4: D")]
    )
    if objective == "minimax":
        return [*d_lines, (-LOG_2, f"{MINUS}log 2: G")]
    return [d_lines[0], (LOG_2, "log 2: D and G" if halved else "log 2: G")]


def _least_squares_lines(halved: bool, real_target: float) -> list[Level]:
    """D = b/2 everywhere: [monitor.9]."""
    d = 0.5 * real_target**2 * (0.5 if halved else 1.0)
    g = (0.5 * real_target - 1.0) ** 2
    if math.isclose(d, g):
        return [(d, f"{d:.2g}: D and G")]
    return [(d, f"{d:.2g}: D"), (g, f"{g:.2g}: G")]


def _smoothed_lines(halved: bool, objective: str, real_target: float) -> list[Level]:
    """D(x) = t/2 everywhere: [monitor.9]."""
    p = 0.5 * real_target
    if p <= 0.0:
        return []
    d = -real_target * math.log(p) - (2.0 - real_target) * math.log(1.0 - p)
    d *= 0.5 if halved else 1.0
    g = math.log(1.0 - p) if objective == "minimax" else -math.log(p)
    return [(level, f"{level:.3f}: {who}") for level, who in ((d, "D"), (g, "G"))]


def output_level(objective: str, real_target: float = 1.0) -> Level | None:
    """D's output when it cannot tell; None where that is any constant."""
    if objective in ("wgan", "hinge"):
        return None
    level = 0.5 * real_target
    return level, ("½" if level == 0.5 else f"{level:g}") + ": D cannot tell"


def write_curves(
    path: Path,
    metrics: Metrics,
    *,
    halved: bool,
    objective: str,
    title: str,
    real_target: float = 1.0,
) -> None:
    """Draw the columns of metrics.csv (see `read_metrics`) into a PNG, atomically.

    halved        D's loss is (real + fake) / 2, so that at the equilibrium it is half as large
    real_target   D's label for real samples
    """
    measured = any(math.isfinite(value) for value in metrics["spread"])  # not in older runs
    heights = (1.25, 1.0, 0.8, 0.8) if measured else (1.2, 1.0)
    figure = new_figure(8.4, 2.6 * sum(heights) + 0.6, dpi=110, layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    panels[0].set_title(title, loc="left", fontsize=11, color=GREY)
    _losses(panels[0], metrics, loss_lines(halved, objective, real_target))
    _outputs(panels[1], metrics, objective, output_level(objective, real_target))
    if measured:
        _accuracy_and_spread(panels[2], metrics)
        _gradients(panels[3], metrics)
    panels[-1].set_xlabel("step (one update of G)")
    save_figure(figure, path)


def _losses(axes: Axes, metrics: Metrics, levels: list[Level]) -> None:
    _draw(axes, metrics, ("d_loss", "loss of D", D_COLOUR), ("g_loss", "loss of G", G_COLOUR))
    _frame(axes, [*metrics["d_loss"], *metrics["g_loss"]], [0.0, *(level for level, _ in levels)])
    low, high = axes.get_ylim()
    for level, words in levels:  # two that are close make room for one another
        va = "center"
        for other, _ in levels:
            if 0.0 < abs(other - level) < 0.09 * (high - low):
                va = "bottom" if level > other else "top"
        _level(axes, level, words, va)
    axes.set_ylabel("loss")


def _outputs(axes: Axes, metrics: Metrics, objective: str, level: Level | None) -> None:
    """D(x) and D(G(z)): probabilities, or the mean scores of a critic."""
    _draw(
        axes,
        metrics,
        ("d_real", "D(x), real", D_COLOUR),
        ("d_fake", "D(G(z)), generated", G_COLOUR),
    )
    if level:
        _level(axes, *level)
    if objective in CROSS_ENTROPIES:
        axes.set_ylim(0, 1)
        axes.set_ylabel("mean output of D")
        return
    levels = [level[0]] if level else []
    _frame(axes, [*metrics["d_real"], *metrics["d_fake"]], levels)
    axes.set_ylabel("mean score by D")


def _accuracy_and_spread(axes: Axes, metrics: Metrics) -> None:
    """Shares, all three: what D tells right, and how far apart fakes are beside real samples."""
    _draw(
        axes,
        metrics,
        ("acc_real", "D is right: real", D_COLOUR),
        ("acc_fake", "generated", G_COLOUR),
        ("spread", "spread of generated / real", THIRD),
    )
    _level(axes, 1.0, "1: as diverse")
    _level(axes, 0.5, "½: D guesses")
    axes.set_ylim(0, 1.5 if max(_finite(metrics["spread"])) > 1.1 else 1.1)
    axes.set_ylabel("share")


def _gradients(axes: Axes, metrics: Metrics) -> None:
    """G's gradient and D's penalty, where there is one; both may span powers of ten."""
    columns = [("g_gradient", "length of G's gradient", G_COLOUR)]
    if any(_finite(metrics["penalty"])):
        columns.append(("penalty", "D's penalty", D_COLOUR))
    positive = [value for name, *_ in columns for value in _finite(metrics[name]) if value > 0]
    if positive:
        axes.set_yscale("log")
    _draw(axes, metrics, *columns)
    if positive:
        low, high = np.percentile(positive, [0.5, 100.0])
        axes.set_ylim(low / 1.5, high * 1.5)
    axes.set_ylabel("size")


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _draw(axes: Axes, metrics: Metrics, *columns: tuple[str, str, str]) -> None:
    """Columns as (name, label, colour): every reading pale, their running mean in full colour."""
    steps = np.array(metrics["step"])
    for name, label, colour in columns:
        values = np.array(metrics[name])
        known = np.isfinite(values)  # a run of an older version knows some columns from a resume on
        at, values = steps[known], values[known]
        stride = max(1, len(at) // MOST_POINTS)
        mean = smooth(values, len(values) // 60)
        axes.plot(at[::stride], values[::stride], color=colour, alpha=0.22, linewidth=0.7)
        axes.plot(at, mean, color=colour, linewidth=1.6, label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.margins(x=0.01)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    above = (1.0, 0.99)  # where it hides no curve
    axes.legend(
        loc="lower right", bbox_to_anchor=above, frameon=False, ncols=len(columns), fontsize=9
    )


def _level(axes: Axes, level: float, words: str, va: str = "center") -> None:
    axes.axhline(level, color=GREY, linestyle=(0, (5, 4)), linewidth=0.9, zorder=1.6)
    place = axes.get_yaxis_transform()  # x in parts of the panel, y in data
    axes.text(1.005, level, words, transform=place, va=va, fontsize=8, color=GREY)


def _frame(axes: Axes, values: Sequence[float], levels: Sequence[float]) -> None:
    """Let a few wild readings (the first steps, mostly) leave the panel rather than flatten it."""
    low, high = np.percentile(values, [0.5, 99.5]) if len(values) else (0.0, 1.0)
    low, high = min(low, *levels, high), max(high, *levels, low)
    room = (high - low) or 1.0
    axes.set_ylim(low - 0.03 * room, high + 0.15 * room)
