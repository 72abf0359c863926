"""Draw the computed figures of the chapters: python docs/img/make_figures.py

Every curve is a formula of the chapter that shows it, evaluated. The other SVG files here were
drawn by hand.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
BLUE, ORANGE, GREY = "#33658a", "#c8611a", "#8a8f99"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def normal(x: np.ndarray, mean: float) -> np.ndarray:
    return np.exp(-0.5 * (x - mean) ** 2) / np.sqrt(2.0 * np.pi)


def best_discriminator() -> Figure:
    """docs/game.md: D* = p/(p + q) and its logit, for p = N(0, 1) and q = N(2, 1)."""
    x, mu = np.linspace(-3.0, 5.0, 161), 2.0
    p, q = normal(x, 0.0), normal(x, mu)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    left.fill_between(x, p, color=BLUE, alpha=0.25, lw=0)
    left.fill_between(x, q, color=ORANGE, alpha=0.25, lw=0)
    left.plot(x, p, color=BLUE, label="p, data")
    left.plot(x, q, color=ORANGE, label="q, fakes")
    left.plot(x, p / (p + q), color="black", label="D* = p / (p + q)")
    left.set(xlabel="x", ylim=(0.0, 1.05), title="the best answer at each x")
    left.legend(frameon=False, loc="center right")
    right.axhline(0.0, color=GREY, lw=0.8)
    right.plot(x, np.log(p / q), color="black")
    right.set(xlabel="x", title="its logit, log p/q: a straight line")
    return figure


def two_objectives() -> Figure:
    """docs/objectives.md: G's two losses and the size of their gradients on a fake's logit."""
    x = np.linspace(-8.0, 8.0, 161)
    s = sigmoid(x)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    left.plot(x, np.log(1.0 - s), color=BLUE, label="minimax: log(1 - D)")
    left.plot(x, -np.log(s), color=ORANGE, label="non-saturating: -log D")
    left.set(title="G's loss on one fake", xlabel="logit of the fake")
    left.legend(frameon=False, loc="lower left", fontsize=8)
    right.plot(x, s, color=BLUE)
    right.plot(x, 1.0 - s, color=ORANGE)
    right.set(title="how loudly that fake speaks: |gradient|", xlabel="logit of the fake")
    for axes in (left, right):
        axes.axvline(0.0, color=GREY, lw=0.8)
    right.text(-7.8, 0.46, "D is sure: fake", fontsize=8, color=GREY)
    right.text(7.8, 0.46, "D is taken in", fontsize=8, color=GREY, ha="right")
    return figure


def five_objectives() -> Figure:
    """docs/objectives.md: D's loss on one real sample, and the size of G's gradient on one fake."""
    s, softplus = np.linspace(-4.0, 4.0, 321), lambda x: np.logaddexp(0.0, x)
    losses = {
        "cross-entropy": softplus(-s),
        "lsgan": (s - 1.0) ** 2,
        "hinge": np.maximum(0.0, 1.0 - s),
        "wgan": -s,
    }
    gradients = {
        "minimax": sigmoid(s),
        "non-saturating": 1.0 - sigmoid(s),
        "lsgan": 2.0 * np.abs(s - 1.0),
        "hinge, wgan": np.ones_like(s),
    }
    colours = {"lsgan": "#4f8a5b", "hinge": ORANGE, "wgan": GREY, "cross-entropy": BLUE}
    colours |= {"minimax": BLUE, "non-saturating": "black", "hinge, wgan": ORANGE}
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 2.9))
    for axes, curves in zip(panels, (losses, gradients), strict=True):
        for name, curve in curves.items():
            axes.plot(s, curve, color=colours[name], label=name)
        axes.axvline(0.0, color=GREY, lw=0.8)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set(title="D's loss on one real sample", xlabel="its score", ylim=(-4.2, 6.0))
    panels[1].set(title="how loudly a fake speaks: |gradient|", xlabel="its score", ylim=(0, 3.2))
    return figure


def smallest_game() -> Figure:
    """docs/algorithm1.md: V = theta psi, played simultaneously and alternating, eta = 0.2."""
    eta, start, steps = 0.2, (1.0, 0.0), 48
    figure, panels = plt.subplots(1, 2, figsize=(6.6, 3.2), sharex=True, sharey=True)
    for axes, title in zip(panels, ("simultaneous", "alternating"), strict=True):
        path = [start]
        for _ in range(steps):
            theta, psi = path[-1]
            moved = theta - eta * psi
            path.append((moved, psi + eta * (theta if title == "simultaneous" else moved)))
        axes.plot(*np.array(path).T, ".-", color=BLUE, ms=4, lw=0.8)
        axes.plot(*start, "o", color=ORANGE)
        axes.plot(0.0, 0.0, "+", color="black", ms=10)
        axes.set(title=title, xlabel="θ, G's number", aspect="equal")
    panels[0].set_ylabel("ψ, D's number")
    return figure


FIGURES = {
    "best-discriminator": best_discriminator,
    "two-objectives": two_objectives,
    "five-objectives": five_objectives,
    "smallest-game": smallest_game,
}


def main() -> None:
    matplotlib.use("Agg")
    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "tinygan",  # the same file at every run
            "savefig.facecolor": "white",
        }
    )
    for name, draw in FIGURES.items():
        figure = draw()
        figure.tight_layout()
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
