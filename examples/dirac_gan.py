"""The Dirac-GAN of Mescheder, Geiger & Nowozin 2018: the smallest GAN, seen whole.

The data are one point, x = 0. G has one weight and makes one point, G(1) = theta. D has one weight,
D(x) = psi x. All of training is a path in a plane; the equilibrium is (0, 0). Who arrives there?
Derivation: docs/dirac-gan.md.

All games:  python examples/dirac_gan.py
One game:   python examples/dirac_gan.py --objective minimax --penalty r1 --penalty-weight 0.3
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from tinygan import SGD, Game, Network, Noise, get_backend, make_objective
from tinygan.errors import OptionError
from tinygan.gan import ORDERS, simultaneous
from tinygan.gan.constraints import clip_weights
from tinygan.gan.objectives import OBJECTIVES
from tinygan.gan.penalties import PENALTIES, make_penalty
from tinygan.nn import Dense
from tinygan.run.arguments import OneLineParser, one_line_errors, positive, whole
from tinygan.run.atomic import write_bytes
from tinygan.run.figures import new_figure


class Rules(NamedTuple):
    objective: str
    penalty: str | None = None
    weight: float = 0.0
    clip: float | None = None


GALLERY = {
    "minimax": Rules("minimax"),
    "non-saturating": Rules("non-saturating"),
    "least squares": Rules("lsgan"),
    "minimax + R1, γ = 0.3": Rules("minimax", "r1", 0.3),
    "hinge": Rules("hinge"),
    "Wasserstein": Rules("wgan"),
    "Wasserstein, |ψ| ≤ 1": Rules("wgan", clip=1.0),
    "Wasserstein + GP, w = 0.5": Rules("wgan", "gp", 0.5),
}


def dirac_gan(rules: Rules) -> Game:
    """The library's game of G(z) = theta z, shown z = 1, and D(x) = psi x, shown x = 0."""
    backend = get_backend("numpy", "float64")
    G = Network(Dense(1, 1, b=None), (1,), backend, "G")
    D = Network(Dense(1, 1), (1,), backend, "D")
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    objective = make_objective(rules.objective, halved=False)
    penalty = make_penalty(rules.penalty, rules.weight) if rules.penalty else None
    return Game(G, D, objective, lambda: one, lambda: zero, Noise(0, backend), penalty=penalty)


def hold_bias(game: Game) -> None:
    """D stays undecided about x = 0: its score is 0 there, under least squares 1/2."""
    game.D.body.b = game.objective.threshold or 0.0


def place(game: Game, theta: float, psi: float) -> None:
    game.G.body.W, game.D.body.W = theta, psi
    hold_bias(game)


def field(game: Game, theta: float, psi: float) -> tuple[float, float]:
    """Where both players want to go from here, each down its own loss: [dirac.1]."""
    place(game, theta, psi)
    simultaneous(game, ascend_D=lambda: None, descend_G=lambda: None)
    return -game.G.body.dW.item(), -game.D.body.dW.item()


def measured(rules: Rules, h: float = 1e-5) -> np.ndarray:
    """Eigenvalues of the field's Jacobian at (0, 0), by differences; NaN where it jumps."""
    game = dirac_gan(rules)

    def change(h: float) -> np.ndarray:
        along_theta = np.subtract(field(game, h, 0.0), field(game, -h, 0.0))
        along_psi = np.subtract(field(game, 0.0, h), field(game, 0.0, -h))
        return np.stack([along_theta, along_psi], axis=1)

    wide, narrow = change(h), change(0.1 * h)
    jumps = np.abs(narrow) > np.maximum(0.5 * np.abs(wide), 1e-12)  # a slope would be at a tenth
    return np.full(2, np.nan) if jumps.any() else np.linalg.eigvals(wide / (2.0 * h))


def derived(rules: Rules) -> np.ndarray:
    """The same by formula: [dirac.2]."""
    a = 0.5 if rules.objective in ("minimax", "non-saturating") else 1.0
    friction = {"r1": rules.weight, "r2": rules.weight, "gp": np.nan}.get(rules.penalty, 0.0)
    root = np.emath.sqrt(friction**2 / 4.0 - a**2)
    return np.array([-friction / 2.0 + root, -friction / 2.0 - root])


def play(
    rules: Rules,
    order: str,
    lr: float = 0.2,
    steps: int = 500,
    start: tuple[float, float] = (1.0, -1.0),
) -> np.ndarray:
    """The path of (theta, psi), (steps + 1, 2): [dirac.3], [dirac.4]."""
    game, path = dirac_gan(rules), [start]
    G_optimiser, D_optimiser = SGD(game.G, lr), SGD(game.D, lr)

    def ascend_D() -> None:
        D_optimiser.step()
        if rules.clip is not None:
            clip_weights(game.D, rules.clip)
        hold_bias(game)  # which is not clipped, either: psi alone moves

    place(game, *start)
    for game.noise.step in range(1, steps + 1):
        ORDERS[order](game, ascend_D, G_optimiser.step)
        path.append((game.G.body.W.item(), game.D.body.W.item()))
        if max(map(abs, path[-1])) > 1e12:  # gone for good
            break
    return np.array(path)


# ---- pictures and table ----------------------------------------------------------------------

Paths = dict[tuple[str, str], np.ndarray]  # (game, order of play) -> path
REACH, GREY = 3.3, "#c3c9d2"


def portrait(axes: Axes, rules: Rules, path: np.ndarray) -> None:
    """The field in grey, the path from light to dark, a dot at its start and one at its end."""
    ticks, game = np.linspace(-REACH, REACH, 21), dirac_gan(rules)
    to = np.array([[field(game, theta, psi) for theta in ticks] for psi in ticks])
    axes.streamplot(ticks, ticks, to[..., 0], to[..., 1], color=GREY, linewidth=0.6, arrowsize=0.6)
    gone = np.append(np.abs(path).max(axis=1) > 2.0 * REACH, True)
    seen = path[: gone.argmax()]
    pieces = np.stack([seen[:-1], seen[1:]], axis=1)
    age = np.linspace(0.0, 1.0, len(pieces)) ** 0.4  # most happens early
    line = LineCollection(pieces, array=age, cmap="plasma_r", clim=(-0.1, 1.1), lw=1.2, zorder=3)
    axes.add_collection(line)
    axes.plot(*path[0], "o", color="#f5b800", mec="black", mew=0.6, ms=5, zorder=4)
    axes.plot(*path[-1], "o", color="#3b0f70", ms=5, zorder=4)
    axes.plot(0.0, 0.0, "+", color="black", ms=9, mew=1.2, zorder=5)
    if rules.clip is not None:
        axes.hlines([-rules.clip, rules.clip], -REACH, REACH, "black", ":", lw=0.7)
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axes.set(xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    axes.spines[:].set_color(GREY)


def draw(games: dict[str, Rules], orders: list[str], paths: Paths, out: Path) -> None:
    """Four games in a row; under each other what the orders of play make of the same game."""
    wide, high = min(4, len(games)), -(-len(games) // 4) * len(orders)
    figure = new_figure(2.5 * wide + 0.5, 2.45 * high + 0.5, dpi=110, layout="constrained")
    panels = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False)
    for i, (name, rules) in enumerate(games.items()):
        for j, order in enumerate(orders):
            axes = panels[i // 4 * len(orders) + j, i % 4]
            portrait(axes, rules, paths[name, order])
            axes.set_title(name if j == 0 else "", fontsize=10)
            axes.set_ylabel(f"{order}\nψ, D's weight" if i % 4 == 0 else "")
            axes.set_xlabel("θ, G's weight" if i // 4 * len(orders) + j == high - 1 else "")
    content = io.BytesIO()
    figure.savefig(content, format=out.suffix[1:])
    write_bytes(out, content.getvalue())


def print_table(games: dict[str, Rules], orders: list[str], paths: Paths) -> None:
    """Eigenvalues at (0, 0), and how far from it each path ends."""
    row = "{:27}{:20}{:20}" + "{:>12}" * len(orders)
    print(row.format("", "derived", "measured", *orders))
    for name, rules in games.items():
        values = [in_words(found(rules)) for found in (derived, measured)]
        radii = [f"{np.hypot(*paths[name, order][-1]):.4g}" for order in orders]
        print(row.format(name, *values, *radii))


def in_words(pair: np.ndarray) -> str:
    a, b = sorted(np.round(pair, 6) + 0.0, key=lambda value: (value.imag, value.real))
    if np.isnan(a):
        return "none"
    return f"{a.real:.4f} ± {b.imag:.4f}i" if b.imag else f"{a.real:.4f}, {b.real:.4f}"


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--objective", choices=OBJECTIVES, help="one game (default: a gallery of eight)")
    add("--penalty", choices=PENALTIES, help="on the slope of this game's D")
    add("--penalty-weight", type=positive, metavar="W", help="of it (0.3)")
    add("--clip", type=positive, metavar="C", help="keep this game's psi in [-C, C]")
    add("--order", choices=ORDERS, help="of play (default: simultaneous and alternating)")
    add("--steps", type=whole(1), default=500, metavar="N", help="moves of both players (500)")
    add("--lr", type=positive, default=0.2, metavar="H", help="size of a move (0.2)")
    add("--out", type=Path, default=Path("dirac.png"), help="the picture (dirac.png)")
    o = parser.parse_args(argv)
    if o.objective is None and (o.penalty or o.clip):
        raise OptionError("--penalty and --clip belong to one game: give its --objective")
    if o.penalty_weight and not o.penalty:
        raise OptionError("--penalty-weight is the weight of a penalty: give --penalty, too")
    if o.out.suffix not in (".png", ".svg", ".pdf") or not o.out.parent.is_dir():
        raise OptionError(f"--out {o.out}: expected a .png, .svg or .pdf in a folder that exists")
    one = Rules(o.objective, o.penalty, o.penalty_weight or 0.3, o.clip)
    games = {" + ".join(filter(None, one[:2])): one} if o.objective else GALLERY
    orders = [o.order] if o.order else ["simultaneous", "alternating"]
    paths = {
        (name, order): play(rules, order, o.lr, o.steps)
        for name, rules in games.items()
        for order in orders
    }
    print_table(games, orders, paths)
    draw(games, orders, paths, o.out)
    print(f"phase portraits: {o.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
