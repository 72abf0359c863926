"""Pictures of games in the plane: D's surface, both kinds of points, and where G is sent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygan.backend import Array
from tinygan.data.points import Mixture, PointSet
from tinygan.gan import Game
from tinygan.metrics.density import best_discriminator, blurred_mixture, blurred_samples
from tinygan.metrics.modes import mode_coverage
from tinygan.run.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

SIDE, FINE = 96, 256  # places along each axis at which D is asked, and at which D* is computed
AT_ONCE = 1152  # of the first in one pass of D
POINTS, ARROWS = 1200, 36  # drawn at most; `ARROWS` divides by the usual packings
ENOUGH = 500  # fakes from which to estimate their density
BLUR = 0.015  # of the densities, in widths of the view
EVIDENCE = 3.0  # points under a kernel where D* is drawn; fewer say nothing of p and q
REAL, FAKE, INK, GREY = "#123a5e", "#c0390b", "#111111", "#555555"
# D(x) from "fake" to "real", in few shades: a level can be read off, and the animation is small.
SHADES = ["#e0793f", "#eda677", "#f6cdb0", "#fbece0", "#e9f1f6", "#c3dae9", "#93bcda", "#5d97c5"]
LEVELS = np.array([0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])


class View(NamedTuple):
    """A square of the plane, and the places in it at which surfaces are computed."""

    low: Floats
    width: float

    @classmethod
    def around(cls, points: NDArray[Any], margin: float = 0.18, stray: float = 0.05) -> View:
        """A square around the points but for `stray` percent at each end of either axis.

        The margin is in parts of their extent.
        """
        low, high = np.percentile(points.astype(np.float64), [stray, 100.0 - stray], axis=0)
        smallest = 1e-12 * float(np.abs(high).max()) or 1.0  # of which an axis can tell the ends
        width = max(float((high - low).max()), smallest) * (1.0 + 2.0 * margin)
        return cls(0.5 * (low + high - width), width)

    def axis(self, i: int, cells: int = SIDE) -> Floats:
        """The middles of so many cells along axis i."""
        return np.asarray(self.low[i] + self.width * (np.arange(cells) + 0.5) / cells)

    def places(self) -> Floats:
        """The middles of all cells, (SIDE², 2), row by row upwards."""
        y, x = np.meshgrid(self.axis(1), self.axis(0), indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def holds(self, points: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(((points >= self.low) & (points <= self.low + self.width)).all(axis=1))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        x, y = (float(low) for low in self.low)
        return x, x + self.width, y, y + self.width


class PlanePicture:
    """Called with a path and G's samples (N, 2), draws one frame and returns its pixels.

    D is asked at call sites of their own, in evaluation mode: training does not notice. A packed D
    takes `packing` points at once: over the plane, as many copies of each place; of the fakes,
    those that follow one another.
    """

    def __init__(self, data: PointSet, game: Game, packing: int = 1) -> None:
        self.data, self.game, self.packing = data, game, packing
        self.view = View.around(data.points)
        self._over_plane = game.D.cache("D over the plane", train=False)
        self._of_points = game.D.cache("D of the drawn points", train=False)
        self._losses = game.D.cache("loss of the drawn points")

    def __call__(self, path: Path, samples: np.ndarray) -> np.ndarray:
        known = self.data.mixture is not None and len(samples) >= ENOUGH
        width, height = (8.4, 4.9) if known else (5.4, 6.12)
        figure = new_figure(width, height)
        left, right = figure.subplots(1, 2) if known else (figure.subplots(), None)
        below, above = 0.37 / height, 1.0 - 0.47 / height
        side = 0.1 / width
        figure.subplots_adjust(side, below, 1.0 - side, above, wspace=0.025)
        self._draw_game(left, samples)
        if right is not None and self.data.mixture is not None:
            self._draw_best(left, right, self.data.mixture, samples)
        self._write(figure, samples)
        return save_figure(figure, path)

    # ---- what D says ---------------------------------------------------------------------------

    def surface(self) -> Floats:
        """D(x) over the view, (SIDE, SIDE); its score, where that is no probability."""
        places = self.view.places()
        parts = [
            self._outputs(np.repeat(places[i : i + AT_ONCE], self.packing, axis=0))
            for i in range(0, len(places), AT_ONCE)
        ]
        return np.concatenate(parts).reshape(SIDE, SIDE)

    def _outputs(self, points: NDArray[Any]) -> Floats:
        D, objective = self.game.D, self.game.objective
        logits = D.forward(self._on_backend(points), self._over_plane)
        out = D.backend.to_host(logits)[:, 0].astype(np.float64)
        if objective.flipped:
            out = -out
        return np.asarray(_sigmoid(out) if objective.probability else out)

    def pull(self, samples: NDArray[Any]) -> Floats:
        """-dL_G/dx at each sample, (N, 2): where G's loss, as its objective has it, falls."""
        game, fakes = self.game, self._on_backend(samples)
        logits = game.D.forward(fakes, self._of_points)
        _, d_logits = game.objective.generator(logits, self._losses)
        d_fakes = game.D.backward(d_logits, self._of_points, param_grads=False)
        return np.asarray(-game.D.backend.to_host(d_fakes), np.float64)

    def threshold(self, samples: NDArray[Any]) -> float:
        """Where D is undecided, on the scale of `surface`."""
        objective = self.game.objective
        if objective.threshold is not None:
            middle = objective.threshold
            return float(_sigmoid(middle)) if objective.probability else middle
        n = max(min(len(samples), len(self.data)) // self.packing, 1) * self.packing
        both = [
            self._outputs(np.resize(points, (n, 2))).mean()  # some again, if they make no pack
            for points in (self.data.points, samples)
        ]
        return float(0.5 * (both[0] + both[1]))

    def _on_backend(self, points: NDArray[Any]) -> Array:
        backend = self.game.D.backend
        return backend.from_host(points.astype(np.float64), backend.dtype)

    # ---- how it is drawn -----------------------------------------------------------------------

    def _draw_game(self, axes: Axes, samples: np.ndarray) -> None:
        """D's surface, its line of indecision, both kinds of points, arrows at some fakes."""
        surface, middle = self.surface(), self.threshold(samples)
        if self.game.objective.probability:
            levels = 2.0 * max(middle, 1e-6) * LEVELS  # smoothed to t, the best is t p/(p + q)
        else:
            reach = float(np.percentile(np.abs(surface - middle), 98)) or 1.0
            levels = middle + reach * (2.0 * LEVELS - 1.0)
        shade(axes, self.view, surface, levels)
        if surface.min() < middle < surface.max():
            x, y = self.view.axis(0), self.view.axis(1)
            axes.contour(x, y, surface, [middle], colors="white", linewidths=1.8, zorder=1)
        scatter(axes, self.data.points[:POINTS], REAL)
        scatter(axes, samples[:POINTS], FAKE)
        self._draw_arrows(axes, samples)

    def _draw_best(self, left: Axes, right: Axes, mixture: Mixture, samples: np.ndarray) -> None:
        """The best D against these fakes, as far as points can tell; its ½ also in the left."""
        x, y, best = self.best(mixture, samples)
        shade(right, self.view, best, LEVELS)
        scatter(right, self.data.points[:POINTS], REAL)
        scatter(right, samples[:POINTS], FAKE)
        if np.nanmin(best) < 0.5 < np.nanmax(best):
            for axes in (left, right):
                axes.contour(x, y, best, [0.5], colors=INK, linewidths=0.9, zorder=2)

    def best(self, mixture: Mixture, samples: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
        """x, y and D*(x, y) (Y, X); NaN where there are too few points to tell.

        p and q are blurred alike: by Scott's rule for one mode, or to what the eye can see; and by
        the game's own instance noise.
        """
        x, y = self.view.axis(0, FINE), self.view.axis(1, FINE)
        blur = max(BLUR * self.view.width, mixture.std * len(samples) ** (-1 / 6))  # [worlds.8]
        blur = math.hypot(blur, self.game.instance_noise)
        p = blurred_mixture(mixture, x, y, blur)
        q = blurred_samples(samples, x, y, blur)
        best = best_discriminator(p, q, self.packing)
        best[len(samples) * (p + q) * (2.0 * np.pi * blur**2) < EVIDENCE] = np.nan
        return x, y, best

    def _draw_arrows(self, axes: Axes, samples: np.ndarray) -> None:
        """G's gradient at some fakes; lengths are relative to one another."""
        n = min(ARROWS, len(samples)) // self.packing * self.packing
        if n == 0:
            return
        pull, fakes = self.pull(samples[:n]), samples[:n]
        lengths = np.hypot(*pull.T)
        longest = np.percentile(lengths, 90)
        if longest == 0.0:
            return
        pull *= 0.08 * self.view.width / np.maximum(longest, lengths)[:, None]
        axes.quiver(
            *fakes.T,
            *pull.T,
            angles="xy",
            scale_units="xy",
            scale=1.0,
            width=0.0045,
            color=INK,
            zorder=5,
        )

    def _write(self, figure: Figure, samples: np.ndarray) -> None:
        step = f"step {self.game.noise.step:,}".replace(",", "\N{NO-BREAK SPACE}")
        outside = 1.0 - float(self.view.holds(samples).mean())
        words = []
        if self.data.mixture is not None:
            words.append(str(mode_coverage(samples, self.data.mixture)))
        if outside > 0.005:
            words.append(f"{100 * outside:.0f} % of the fakes out of sight")
        width, height = figure.get_size_inches()
        side, top = 0.1 / width, 1.0 - 0.32 / height
        figure.text(side, top, step, fontsize=12, weight="bold", color=INK)
        figure.text(1.0 - side, top, "; ".join(words), fontsize=10.5, color=GREY, ha="right")
        _draw_key(figure, known=len(figure.axes) > 1)


def _sigmoid(logits: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def shade(axes: Axes, view: View, surface: Floats, levels: Floats) -> None:
    """A surface over the view in the shades between `levels`, grey where it is NaN."""
    from matplotlib.colors import BoundaryNorm, ListedColormap

    x0, x1, y0, y1 = view.extent
    axes.imshow(
        surface,
        extent=view.extent,
        origin="lower",
        interpolation="bilinear",
        interpolation_stage="data",
        cmap=ListedColormap(SHADES, "D").with_extremes(bad="#f3f3f3"),
        norm=BoundaryNorm(levels, len(SHADES)),
        zorder=0,
    )
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xticks=[], yticks=[])
    axes.spines[:].set_color("#bbbbbb")


def scatter(axes: Axes, points: NDArray[Any], colour: str) -> None:
    axes.plot(*points.T, ".", color=colour, ms=4.0, alpha=0.55, mew=0, zorder=3)


def write_points(path: Path, points: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw points (N, 2) alone, in their own numbers, as a PNG; returns its pixels."""
    figure = new_figure(5.6, 5.6, facecolor="white", layout="constrained")
    axes = figure.subplots()
    x0, x1, y0, y1 = View.around(points, margin=0.06, stray=0.0).extent
    axes.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    scatter(axes, points, FAKE)
    return save_figure(figure, path)


def _draw_key(figure: Figure, known: bool) -> None:
    """What the colours and lines mean, in one row below the panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches() * 10.0  # tenths of an inch
    axes = figure.add_axes((0.0, 0.0, 1.0, 3.7 / height), xlim=(0.0, width), ylim=(-1.85, 1.85))
    axes.axis("off")

    def say(x: float, words: str) -> None:
        axes.text(x, 0.0, words, fontsize=9, color=GREY, va="center_baseline")

    say(0.8, "D says fake")
    for i, colour in enumerate(SHADES):
        axes.add_patch(Rectangle((8.8 + 1.2 * i, -0.6), 1.2, 1.2, color=colour, lw=0))
    axes.add_line(Line2D([13.6, 13.6], [-0.6, 0.6], color="white", lw=1.8))
    say(18.8, "real")
    for x, colour, words in ((23.6, REAL, "data"), (29.2, FAKE, "G(z)")):
        axes.plot(x, 0.0, ".", color=colour, ms=9)
        say(x + 0.9, words)
    axes.annotate("", (37.4, 0.0), (34.4, 0.0), arrowprops={"arrowstyle": "-|>", "color": INK})
    say(38.1, "where G is sent")
    if known:
        axes.add_line(Line2D([49.6, 52.6], [0.0, 0.0], color=INK, lw=0.9))
        say(53.3, "the best D against these fakes (right) is at \N{VULGAR FRACTION ONE HALF}")
