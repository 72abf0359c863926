"""Pictures of generated curves: beside their target, and how D fares, as a run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygan.data.curves import NOISE, PLACES, SINE, amplitude_range, bounds
from tinygan.data.points import PointSet
from tinygan.gan.objectives import CROSS_ENTROPIES
from tinygan.presets import Preset
from tinygan.run.figures import new_figure, save_figure
from tinygan.run.folder import RunFolder
from tinygan.run.live import Window, open_window
from tinygan.run.loop import say
from tinygan.run.losses import D_COLOUR, G_COLOUR, GREY, LOG_4, MINUS, smooth
from tinygan.run.metrics_file import read_metrics
from tinygan.run.options import Options

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (9.6, 4.8)  # inches
MOST_CURVES = 300  # drawn in one picture
TARGET = "#9dbfe3"

Metrics = Mapping[str, Sequence[float]]


class SinePicture:
    """Draws G's curves beside the true ones, and how D fares: called with (path, samples).

    The readings come from the metrics.csv of the run that `path` lies in, so that a resumed run
    shows its past, too. A `window` shows the same, as long as it is open.
    """

    def __init__(self, data: PointSet, preset: Preset, window: Window | None = None) -> None:
        self.family = data.name
        self.window = window
        # From D's loss to V(D, G), where it is one.
        self.factor = -2.0 if preset.halves_loss else -1.0
        self.labelled = preset.objective in CROSS_ENTROPIES
        self.plain = self.labelled and preset.real_target == 1.0 and not preset.label_noise

    def __call__(self, path: Path, samples: np.ndarray) -> np.ndarray:
        """Write the picture of `samples` (N, 15) to `path`, atomically; its pixels, uint8."""
        place = RunFolder(path.parent.parent).metrics
        metrics = read_metrics(place) if place.exists() else {}
        words = f"step {int(path.stem.rpartition('_')[2]):,}"
        figure = new_figure(*SIZE)
        self._compose(figure, samples, metrics, words)
        if self.window is not None and self.window.open:
            self.window.figure.clear()
            self._compose(self.window.figure, samples, metrics, words)
            self.window.show()
        return save_figure(figure, path)

    def wait(self) -> None:
        """Return when the window, if there is one, is closed."""
        if self.window is not None:
            self.window.wait()

    def _compose(self, figure: Figure, samples: np.ndarray, metrics: Metrics, words: str) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1), height_ratios=(1, 1))
        grid.update(left=0.055, right=0.965, bottom=0.1, top=0.91, hspace=0.45, wspace=0.17)
        paintings = figure.add_subplot(grid[:, 0])
        paintings.set_title(words, loc="left", fontsize=12, color=GREY)
        draw_curves(paintings, samples, self.family)
        steps = np.array(metrics.get("step", ()))
        if not len(steps):
            return
        _accuracy(figure.add_subplot(grid[0, 1]), steps, metrics)
        self._score(figure.add_subplot(grid[1, 1]), steps, metrics)

    def _score(self, axes: Axes, steps: np.ndarray, metrics: Metrics) -> None:
        """D's score at every reading, and its running mean."""
        losses = np.array(metrics["d_loss"]) - np.nan_to_num(metrics["penalty"])
        values, mean = self.factor * losses, self.factor * _smooth(losses)
        axes.plot(steps, values, color=D_COLOUR, alpha=0.22, lw=0.8)
        axes.plot(steps, mean, color=D_COLOUR, lw=1.7)
        levels = [mean.min(), mean.max()]
        if self.plain:
            _level(axes, -LOG_4, f"{MINUS}log 4 = {MINUS}1.386")
            levels.append(-LOG_4)
        name = "D score" if self.labelled else f"{MINUS} loss of D"
        _finish(axes, f"{name} {mean[-1]:.3f}".replace("-", MINUS), steps)
        room = 0.25 * (max(levels) - min(levels)) + 0.01
        axes.set_ylim(min(levels) - room, max(levels) + room)
        axes.set_xlabel("step")


def watch_curves(options: Options, data: PointSet) -> SinePicture:
    """The pictures of a run, and with --live a window for them, where there is a screen."""
    window = open_window(*SIZE) if options.live else None
    if options.live and window is None:
        place = RunFolder(options.folder)
        say(f"no screen here: watch {place.samples}, or {place.animation} when the run is over")
    return SinePicture(data, options.preset, window)


def draw_curves(axes: Axes, curves: np.ndarray, family: str | None = None) -> None:
    """Curves (N, 15) over the `family` that they should belong to, if one is named."""
    high = 1.0
    if family is not None:
        lower, upper = bounds(family)
        high = amplitude_range(family)[1]
        rim = 2 * NOISE * np.sign(SINE)  # what the noise adds, but for one point in twenty
        axes.fill_between(PLACES, lower - rim, upper + rim, color=TARGET, alpha=0.45, lw=0)
        label = "target" if np.array_equal(lower, upper) else "bounds of the target"
        for bound, words in ((upper, label), (lower, None)):
            axes.plot(PLACES, bound, color=TARGET, lw=3.0, label=words, zorder=1.8)
    shown = curves[:MOST_CURVES]
    alpha = float(np.clip(8.0 / max(len(shown), 1), 0.08, 0.75))
    style: dict[str, Any] = {"color": G_COLOUR, "lw": 1.3, "marker": "o", "ms": 2.6}
    axes.plot(PLACES, shown.T, alpha=alpha, **style)
    axes.plot([], [], label="generated", **style)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.4 * high - 0.4, 1.4 * high + 0.4)
    tidy(axes)
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def write_curve_picture(
    path: Path, curves: np.ndarray, family: str | None = None, title: str = ""
) -> np.ndarray:
    """Write curves (N, 15) as one PNG, atomically, over their `family`; its pixels, uint8.

    Of very many curves the first MOST_CURVES are drawn.
    """
    figure = new_figure(6.4, 4.8)
    axes = figure.add_axes((0.085, 0.075, 0.895, 0.855))
    axes.set_title(title, loc="left", fontsize=12, color=GREY)
    draw_curves(axes, curves, family)
    return save_figure(figure, path)


# ---- parts of a picture ------------------------------------------------------------------------


def tidy(axes: Axes) -> None:
    """No box around the panel, and faint lines to read its values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _accuracy(axes: Axes, steps: np.ndarray, metrics: Metrics) -> None:
    """The share that D tells right: of real curves, of generated ones, and the mean of both.

    The mean alone would hide a D that says "real" of everything.
    """
    real, fake = _smooth(metrics["acc_real"]), _smooth(metrics["acc_fake"])
    for values, colour, words in ((real, D_COLOUR, "of real"), (fake, G_COLOUR, "of generated")):
        axes.plot(steps, values, color=colour, alpha=0.55, lw=0.9, label=words)
    axes.plot(steps, (real + fake) / 2, color=D_COLOUR, lw=1.9)
    _level(axes, 0.5, "0.5")
    _finish(axes, f"D accuracy {(real[-1] + fake[-1]) / 2:.3f}", steps)
    axes.set_ylim(-0.05, 1.32)  # room for the legend
    axes.set_yticks((0.0, 0.5, 1.0))
    axes.legend(loc="upper right", frameon=False, fontsize=8, ncols=2)


def _smooth(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return smooth(np.array(values), len(values) // 20)


def _level(axes: Axes, level: float, words: str) -> None:
    """Where this stands when the players are even."""
    axes.axhline(level, color=GREY, ls=(0, (5, 4)), lw=1.0, zorder=1.5)
    axes.set_title(f"at equilibrium {words}", loc="right", fontsize=9, color=GREY)


def _finish(axes: Axes, title: str, steps: np.ndarray) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=D_COLOUR)
    axes.set_xlim(0, max(steps[-1], 1))
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axes)
