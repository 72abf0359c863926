"""Break a GAN on purpose, hear what the monitor says of it, and mend it.

List:   python examples/break_it.py
One:    python examples/break_it.py collapsed
All:    python examples/break_it.py all

Each case plays the same small game twice, broken and mended, on one core in about ten seconds.
It leaves one picture, NAME.png, in runs/break-it (--out DIR): the curve to recognise it by.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygan import Network, Noise, get_backend
from tinygan.data import PointBatches, PointSet, curves, load_world
from tinygan.errors import OptionError
from tinygan.gan import Game, make_objective, make_penalty, paper
from tinygan.gan.monitor import Monitor
from tinygan.nn import BatchNorm, Dense, LeakyReLU, Sequential
from tinygan.optim import SGD, Adam, Optimiser
from tinygan.run.arguments import OneLineParser, one_line_errors, one_of
from tinygan.run.figures import new_figure, save_figure

LOG_EVERY = 10
WORLDS = {"ring": lambda: load_world("ring", 10_000), "sines": lambda: curves(10_000, family=True)}


@dataclass(frozen=True)
class Setting:
    """A small game. The defaults are healthy."""

    world: str = "ring"
    objective: str = "non-saturating"
    penalty: str | None = None
    penalty_weight: float = 0.0
    k: int = 1
    lr_G: float = 1e-3
    lr_D: float = 1e-3
    sgd: bool = False  # for G, in place of Adam, which makes a small gradient as good as a large
    batch_norm: bool = False  # in D
    combined: bool = False  # real and generated samples in one batch
    D_moves: bool = True
    steps: int = 1500


@dataclass(frozen=True)
class Case:
    """One way to break a GAN, and its mend: the same setting but for one or two values."""

    broken: Setting
    mended: Setting
    what: str
    mend: str
    curves: tuple[tuple[str, str], ...]  # column of the metrics, words for it
    scale: str = "linear"  # of the axis


CASES: dict[str, Case] = {}

_far_ahead = Setting(world="sines", objective="minimax", sgd=True, lr_G=1e-2, lr_D=5e-3)
CASES["saturated"] = Case(
    broken=_far_ahead,
    mended=replace(_far_ahead, objective="non-saturating"),
    what="G descends log(1 - D(G(z))), the minimax loss. D is soon sure, and there it is flat",
    mend="let G descend -log D(G(z)): the same fixed point, a gradient that does not vanish",
    curves=(("g_gradient", "length of G's gradient"),),
    scale="log",
)

_hasty = Setting(lr_G=1e-2, steps=3000)
CASES["collapsed"] = Case(
    broken=_hasty,
    mended=replace(_hasty, lr_G=1e-3),
    what="G learns ten times as fast as D: it runs to where D believes it now, all samples "
    "together, and on when D has followed",
    mend="let G learn no faster than D",
    curves=(("spread", "distance of fakes / of real points"),),
)

_unbounded = Setting(objective="wgan", k=5, lr_D=2e-3, steps=800)
CASES["exploding"] = Case(
    broken=_unbounded,
    mended=replace(_unbounded, penalty="gp", penalty_weight=1.0),
    what="a Wasserstein critic whose slope nothing bounds: larger weights are always better",
    mend="the gradient penalty holds the slope near 1",
    curves=(("d_real", "mean score of real"), ("d_fake", "of generated points")),
    scale="symlog",
)

_one_batch = Setting(batch_norm=True, combined=True)
CASES["mixed-batch"] = Case(
    broken=_one_batch,
    mended=replace(_one_batch, combined=False),
    what="D has BatchNorm and sees real and generated points as one batch in its own turn, but "
    "generated points alone in G's turn: another mean, another variance, another D",
    mend="real and generated points as two batches",
    curves=(("d_fake", "D(G(z)) in D's turn"), ("seen by G", "in G's turn")),
)

_still = Setting(D_moves=False, steps=2000)
CASES["no-d"] = Case(
    broken=_still,
    mended=replace(_still, D_moves=True),
    what="k = 0, or D's optimiser forgotten: D never moves, and G walks to what D liked at birth",
    mend="give D its step",
    curves=(("d_real", "D(x)"), ("d_fake", "D(G(z))")),
)

_crushing = Setting(world="sines", lr_D=2e-2, lr_G=2e-5)
CASES["strong-d"] = Case(
    broken=_crushing,
    mended=replace(_crushing, lr_D=1e-3, lr_G=1e-3),
    what="D learns a thousand times as fast as G: it is right about everything, for ever",
    mend="one learning rate for both",
    curves=(("d_real", "D(x)"), ("d_fake", "D(G(z))")),
)


@dataclass
class Story:
    """What happened in one game: metrics, what the monitor said, and G's samples at the end."""

    world: PointSet
    rows: list[dict[str, float]] = field(default_factory=list)
    warnings: list[tuple[int, str]] = field(default_factory=list)
    said: dict[str, int] = field(default_factory=dict)  # sign -> step
    samples: Any = None

    def column(self, name: str) -> np.ndarray:
        if name == "seen by G":  # a lower bound of the mean D(G(z)) in G's turn: Jensen
            return np.exp(-self.column("g_loss"))
        return np.array([row[name] for row in self.rows])


def make_game(setting: Setting, world: PointSet, noise: Noise) -> Game:
    """Two networks with two hidden layers of 64; z is normal."""
    latent, width, n = (2 if setting.world == "ring" else 5), 64, world.example_shape[0]
    norm = [BatchNorm(width)] if setting.batch_norm else []
    G = Sequential(
        *(Dense(latent, width), LeakyReLU(0.2)),
        *(Dense(width, width), LeakyReLU(0.2)),
        Dense(width, n),
    )
    D = Sequential(
        *(Dense(n, width), *norm, LeakyReLU(0.2)),
        *(Dense(width, width), LeakyReLU(0.2)),
        Dense(width, 1),
    )
    m = 128
    return Game(
        Network(G, (latent,), noise.backend, "G", noise),
        Network(D, (n,), noise.backend, "D", noise),
        make_objective(setting.objective, halved=False),
        lambda: noise.normal("z", (m, latent)),
        PointBatches(world.points, m, noise, setting.k),
        noise,
        combined=setting.combined,
        penalty=setting.penalty and make_penalty(setting.penalty, setting.penalty_weight),
    )


def play(setting: Setting, seed: int = 0) -> Iterator[Story]:
    """Play the game; the story so far at every reading of the metrics."""
    noise = Noise(seed, get_backend("numpy"))
    story = Story(WORLDS[setting.world]())
    game = make_game(setting, story.world, noise)
    D_optimiser = Adam(game.D, setting.lr_D, beta1=0.5)
    G_optimiser: Optimiser = Adam(game.G, setting.lr_G, beta1=0.5)
    if setting.sgd:
        G_optimiser = SGD(game.G, setting.lr_G, momentum=0.5)
    monitor = Monitor(setting.objective, bounded=setting.penalty is not None)
    ascend_D = D_optimiser.step if setting.D_moves else lambda: None
    for step in range(1, setting.steps + 1):
        noise.step = step
        paper(game, ascend_D, G_optimiser.step, setting.k)
        if step == 1 or step % LOG_EVERY == 0:
            values = game.metrics()
            story.rows.append({"step": step, **values})
            story.warnings += [(step, words) for words in monitor.see(step, values)]
            story.said = monitor.said
            story.samples = game.G_of_z.backend.to_host(game.shown)[:128].copy()
            yield story


def show(name: str, folder: Path) -> None:
    """Break it, mend it, and draw both."""
    case = CASES[name]
    print(f"{name}: {case.what}.")
    *_, broken = play(case.broken)
    for step, words in broken.warnings or [(case.broken.steps, "nothing")]:
        print(f"  step {step}, the monitor says: {words}.")
    print(f"  mend: {case.mend}.")
    *_, mended = play(case.mended)
    for step, words in mended.warnings or [(case.mended.steps, "nothing")]:
        print(f"  mended, step {step}, the monitor says: {words}.")
    path = folder / f"{name}.png"
    draw(path, case, broken, mended)
    print(f"  {path}")


# ---- the picture -------------------------------------------------------------------------------

BLUE, ORANGE, GREY = "#1f5fa8", "#c8502d", "#555555"


def draw(path: Path, case: Case, broken: Story, mended: Story) -> None:
    """Curve above, samples below; broken on the left, mended on the right."""
    figure = new_figure(8.4, 5.6, layout="constrained")
    above, below = figure.subplots(2, 2, sharey="row", height_ratios=(1, 1.25))
    for axes, story, title in zip(above, (broken, mended), ("broken", "mended"), strict=True):
        axes.set_title(title, loc="left", fontsize=11, color=GREY)
        for (column, words), colour in zip(case.curves, (BLUE, ORANGE), strict=False):
            axes.plot(story.column("step"), story.column(column), color=colour, lw=1.3, label=words)
        axes.set_yscale(case.scale)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.set_xlabel("step", fontsize=9)
    above[0].legend(frameon=False, fontsize=9)
    if broken.warnings:
        first = broken.warnings[0][0]
        above[0].axvline(first, color=GREY, linestyle=(0, (5, 4)), linewidth=0.9)
        place = above[0].get_xaxis_transform()
        above[0].text(first, 1.02, "the monitor speaks", transform=place, fontsize=8, color=GREY)
    for axes, story in zip(below, (broken, mended), strict=True):
        _draw_samples(axes, story)
    save_figure(figure, path)


def _draw_samples(axes: Any, story: Story) -> None:
    """Points of the plane, or curves over the places of their points."""
    real, fakes = story.world.points[:1000], story.samples
    if real.shape[1] == 2:
        axes.scatter(*real.T, s=3, color="#bbbbbb", label="real")
        axes.scatter(*fakes.T, s=9, color=ORANGE, alpha=0.8, lw=0, label="generated")
        axes.set_xlim(-2, 2)
        axes.set_ylim(-1.6, 1.6)
        axes.set_aspect("equal")
    else:
        places = np.linspace(-1, 1, real.shape[1])
        axes.plot(places, real[:60].T, color="#cccccc", lw=0.6)
        axes.plot(places, fakes[:12].T, color=ORANGE, lw=1)
        axes.set_ylim(-2.6, 2.6)
    axes.spines[["top", "right"]].set_visible(False)


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", type=one_of((*CASES, "all"), "case"), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/break-it"), metavar="DIR")
    given = parser.parse_args(argv)
    if given.name is None:
        for name, case in CASES.items():
            print(f"{name:<12} {case.what}.")
        return
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OptionError(f"--out {given.out}: {problem.strerror}: give a folder") from problem
    for name in CASES if given.name == "all" else (given.name,):
        show(name, given.out)


if __name__ == "__main__":
    with one_line_errors():
        main()
