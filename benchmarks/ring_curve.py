"""Modes and quality of the published ring over the steps, single samples beside packs of two.

    python benchmarks/ring_curve.py

Draws what ring_modes.py --refresh 50 has measured (benchmarks/results/ring_modes.json) and trains
nothing: a faint line for each seed, mean ± standard error over the seeds in full colour, the
published figures as dashed lines. Writes docs/results/ring-published/modes.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import RESULTS
from ring_modes import PUBLISHED, mean_and_error, refreshed

from tinygan.run.arguments import one_line_errors
from tinygan.run.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = RESULTS.parent.parent / "docs/results/ring-published/modes.png"
AS_PUBLISHED = refreshed(50)
KINDS = {  # setting: packing, words, colour
    f"ring-published{AS_PUBLISHED}": (1, "one sample at a time", "#1f5fa8"),
    f"ring-published, packing 2{AS_PUBLISHED}": (2, "packs of two", "#c8502d"),
}
PANELS = {"covered": ("modes covered, of 8", 1), "quality": ("good samples, %", 100)}

Row = dict[str, Any]


def draw(rows: list[Row], path: Path) -> None:
    """Both panels, from the rows of ring_modes.json."""
    figure = new_figure(9.6, 4.0, dpi=110, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (name, (words, factor)) in zip(panels, PANELS.items(), strict=True):
        for setting in KINDS:
            points = [
                {"seed": row["seed"], "x": row["step"] / 1000, "y": factor * row[name]}
                for row in rows
                if row["setting"] == setting
            ]
            draw_kind(axes, points, setting)
            packing, kind, colour = KINDS[setting]
            level = factor * PUBLISHED[packing][name == "quality"]
            look = {"color": colour, "ls": (0, (5, 4)), "lw": 1.0}
            axes.axhline(level, label=f"{kind}, published", **look)
        axes.set_xlabel("thousand steps")
        axes.set_ylabel(words)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=len(labels))
    save_figure(figure, path)


def draw_kind(axes: Axes, points: list[Row], setting: str) -> None:
    """The seeds of one setting, faint, and their mean with its error."""
    packing, kind, colour = KINDS[setting]
    for seed in {point["seed"] for point in points}:
        own = [point for point in points if point["seed"] == seed]
        axes.plot([p["x"] for p in own], [p["y"] for p in own], color=colour, alpha=0.25)
    steps = sorted({p["x"] for p in points})
    figures = [mean_and_error([p["y"] for p in points if p["x"] == x]) for x in steps]
    means = [mean for mean, _ in figures]
    errors = [error or 0.0 for _, error in figures]  # one seed has none
    apart = [x + 3 * (packing - 1.5) for x in steps]  # so that no error hides another
    axes.errorbar(apart, means, errors, color=colour, marker="o", ms=4, capsize=3, label=kind)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RESULTS / "ring_modes.json")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args(argv)
    draw(json.loads(given.measured.read_text(encoding="utf-8"))["runs"], given.out)
    print(given.out)


if __name__ == "__main__":
    with one_line_errors():
        main()
