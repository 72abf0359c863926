"""Draw the figures of dirac-gan.md and optimal-discriminator.md: needs the library, and a minute.

Run:  python docs/img/make_theory_figures.py
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tinygan import Adam, Game, Network, Noise, Sequential, get_backend, make_objective
from tinygan.nn import Dense, LeakyReLU

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples" / "dirac_gan.py"
BLUE, ORANGE, GREEN, GREY = "#33658a", "#c8611a", "#4f8a5b", "#8a8f99"
PAIRS = {(1.0, 1.0): BLUE, (2.0, 1.0): ORANGE, (0.0, 2.0): GREEN}  # fakes (mu, s) -> colour
STEPS = 1000


def portraits() -> None:
    """docs/dirac-gan.md: the example's picture, in fewer colours."""
    picture = HERE / "dirac-gan.png"
    subprocess.run([sys.executable, EXAMPLE, "--out", picture], check=True)
    Image.open(picture).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(
        picture, optimize=True
    )


def eigenvalues() -> Figure:
    """docs/dirac-gan.md: where R1 moves the eigenvalues of one step, a = 1, h = 0.5."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.5), sharex=True, sharey=True)
    angle, gammas = np.linspace(0.0, math.pi / 2.0, 200), np.linspace(0.0, 1.5, 200)
    for axes, order in zip(panels, ("simultaneous", "alternating"), strict=True):
        axes.fill_between(np.cos(angle), np.sin(angle), color="#eef1f5", lw=0)
        axes.plot(np.cos(angle), np.sin(angle), color=GREY, lw=0.9)
        path = np.array([one_step(gamma, order) for gamma in gammas])
        axes.plot(path.real, path.imag, color=BLUE, lw=1.2)
        for gamma in (0.0, 0.25, 0.5, 1.0, 1.5):
            point = one_step(gamma, order)
            arrives = abs(point) < 1.0 - 1e-9
            axes.plot(point.real, point.imag, "o", color=BLUE if arrives else ORANGE, ms=5.5)
            axes.text(
                point.real - 0.012,
                point.imag + 0.025,
                f"γ = {gamma:g}",
                rotation=50,
                fontsize=8,
            )
        axes.set(
            title=order, xlabel="real part", aspect="equal", xlim=(0.35, 1.2), ylim=(0.0, 0.72)
        )
    panels[0].set_ylabel("imaginary part")
    panels[0].text(0.6, 0.1, "inside the unit circle:\nthe players arrive", fontsize=8, color=GREY)
    return figure


def one_step(gamma: float, order: str, h: float = 0.5) -> complex:
    """The upper eigenvalue of [dirac.3] or [dirac.4], a = 1."""
    corner = 1.0 - h * gamma - (h * h if order == "alternating" else 0.0)
    pair = np.linalg.eigvals(np.array([[1.0, h], [-h, corner]], complex))
    return complex(pair[pair.imag.argmax()])


def trained_discriminators() -> Figure:
    """docs/optimal-discriminator.md: theory as lines, Ds that this library trained as dots."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4))
    x = np.linspace(-4.0, 5.0, 37)
    for (mu, s), colour in PAIRS.items():
        game, values = train(mu, s)
        theory = value(mu, s)
        left.axhline(theory, color=colour, lw=0.9, ls="--")
        below = 0.02 if mu else -0.055  # two of the three lie close together
        left.text(200.0, theory + below, f"{theory:.6f}", color=colour, fontsize=8)
        left.plot(np.arange(1, STEPS + 1), values, color=colour, lw=1.1)
        logits = game.D.forward(x[:, None], game.D.cache("a look")).ravel()
        mass = 0.5 * (normal(x, 0.0, 1.0) + normal(x, mu, s)) > 0.01
        name = f"N({mu:g}, 1)" if s == 1.0 else f"N({mu:g}, {s:g}²)"
        right.plot(x, best_logit(x, mu, s), color=colour, lw=1.1, label=f"fakes {name}")
        right.plot(x[mass], logits[mass], "o", color=colour, ms=3.2)
        right.plot(x[~mass], logits[~mass], "o", color=colour, ms=3.2, mfc="white", mew=0.7)
    left.set(
        xscale="log", ylim=(-1.5, -0.6), xlabel="D's updates", title="the game's value, V(D, G)"
    )
    right.set(xlabel="x", ylim=(-8.5, 8.5), title="D's logit")
    right.axhline(0.0, color=GREY, lw=0.7)
    right.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def train(mu: float, s: float) -> tuple[Game, list[float]]:
    """As tests/test_theory.py does: D alone, quantiles for samples, Adam, a cosine."""
    backend = get_backend("numpy", "float64")
    G = Network(Dense(1, 1), (1,), backend, "G")
    G.body.W, G.body.b = s, mu
    hidden = Dense(1, 16), LeakyReLU(0.2), Dense(16, 16), LeakyReLU(0.2)
    D = Network(Sequential(*hidden, Dense(16, 1)), (1,), backend, "D", Noise(1, backend))
    z = np.array([[NormalDist().inv_cdf((i + 0.5) / 2048)] for i in range(2048)])
    objective = make_objective("minimax", halved=False)
    game = Game(G, D, objective, lambda: z, lambda: z, Noise(1, backend))
    adam = Adam(D, lambda t: 0.005 * (1.0 + math.cos(math.pi * t / STEPS)))
    values = []
    for _ in range(STEPS):
        game.discriminator_gradient(z, game.fakes(z))
        values.append(-float(game.d_loss))
        adam.step()
    return game, values


def normal(x: np.ndarray, mu: float, s: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mu) / s) ** 2) / (s * math.sqrt(2.0 * math.pi))


def best_logit(x: np.ndarray, mu: float, s: float) -> np.ndarray:
    return -0.5 * x**2 + 0.5 * ((x - mu) / s) ** 2 + math.log(s)


def value(mu: float, s: float) -> float:
    """-log 4 + 2 JSD, as the V of the best D."""
    x = np.linspace(-12.0, 14.0, 20001)
    best = best_logit(x, mu, s)
    terms = normal(x, 0.0, 1.0) * np.logaddexp(0.0, -best) + normal(x, mu, s) * np.logaddexp(
        0.0, best
    )
    return -float(terms.sum() * (x[1] - x[0]))


FIGURES = {"dirac-eigenvalues": eigenvalues, "trained-discriminators": trained_discriminators}


def main() -> None:
    matplotlib.use("Agg")
    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "tinygan",
            "savefig.facecolor": "white",
        }
    )
    for name, draw in FIGURES.items():
        figure = draw()
        figure.tight_layout()
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    portraits()


if __name__ == "__main__":
    main()
