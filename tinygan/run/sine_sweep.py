"""What each number of z controls: it is moved, the others stay, and one looks at the curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygan.data.curves import NOISE, PLACES, SINE, amplitude_range
from tinygan.data.points import PointSet
from tinygan.metrics.curves import best_amplitude
from tinygan.nn import Network
from tinygan.noise import Noise
from tinygan.run.figures import new_figure, save_figure
from tinygan.run.loop import say
from tinygan.run.losses import GREY, MINUS
from tinygan.run.options import Options
from tinygan.run.sine_pictures import TARGET, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALUES = 17  # that one number of z takes
REACH = {"normal": 2.0, "uniform": 3.0**0.5}  # by prior; beyond the latter G has seen nothing


def sweep(G: Network, z: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What G makes when one number of z takes each of `values` (V,) and the others stay.

    z (B, L): the places to start from. Result (L, B, V, 15): by which number was moved, from which
    place, to which value.
    """
    starts, latent = z.shape
    moved = np.tile(z[None, :, None], (latent, 1, len(values), 1))
    for i in range(latent):
        moved[i, :, :, i] = values
    look = G.cache("sweep", train=False)
    y = G.backend.to_host(G.forward(G.backend.from_host(moved.reshape(-1, latent)), look))
    return np.asarray(y, np.float64).reshape(latent, starts, len(values), -1)


def sweep_run(options: Options, data: PointSet, G: Network) -> None:
    """Write sweep.png into the run folder: around z = 0 and around three draws of z."""
    noise, backend = Noise(options.seed, G.backend), G.backend
    draws = backend.to_host(options.preset.draw_latent(noise, "sweep", 3))
    place = options.folder / "sweep.png"
    reach = REACH[options.preset.prior]
    write_sweep_picture(place, G, data.name, np.concatenate([0 * draws[:1], draws]), reach)
    say(f"what each number of z controls: {place}")


def write_sweep_picture(
    path: Path, G: Network, family: str, z: np.ndarray, reach: float = REACH["normal"]
) -> np.ndarray:
    """Write a PNG with a row for each number of z, atomically; its pixels, uint8.

    z (B, L): the places at which the other numbers are held while one goes from -reach to reach.
    Left: the curves from the first of them. Middle: what is left of those beside their best sine.
    Right: the amplitude of the best sine, a line for each place.
    """
    from matplotlib import colormaps

    values = np.linspace(-reach, reach, VALUES)
    curves = sweep(G, z, values)
    colours = colormaps["viridis"](np.linspace(0, 0.95, VALUES))
    amplitudes = best_amplitude(curves.reshape(-1, len(PLACES))).reshape(curves.shape[:3])
    figure = new_figure(9.6, 0.75 + 1.6 * len(curves))
    panels = figure.subplots(len(curves), 3, sharex="col", sharey="col", squeeze=False)
    for i, (row, axes) in enumerate(zip(curves[:, 0], panels, strict=True)):
        axes[0].set_ylabel(f"$z_{i + 1}$", rotation=0, fontsize=14, labelpad=12, va="center")
        _lines(axes[0], row, colours)
        _lines(axes[1], row - amplitudes[i, 0, :, None] * SINE, colours)
        _amplitudes(axes[2], values, amplitudes[i], family)
    titles = (
        f"{MINUS}{reach:.2g} (violet) to {reach:.2g} (yellow)",
        "less their best sine",
        "its amplitude (black: the others 0)",
    )
    for axes, words in zip(panels[0], titles, strict=True):
        axes.set_title(words, loc="left", fontsize=11, color=GREY)
    for axes, words in zip(panels[-1], ("x", "x", "the number that is moved"), strict=True):
        axes.set_xlabel(words, color=GREY)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.955, bottom=0.065, wspace=0.2, hspace=0.2)
    return save_figure(figure, path)


def _lines(axes: Axes, curves: np.ndarray, colours: Any) -> None:
    for curve, colour in zip(curves, colours, strict=True):
        axes.plot(PLACES, curve, color=colour, lw=1.2)
    tidy(axes)


def _amplitudes(axes: Axes, values: np.ndarray, amplitudes: np.ndarray, family: str) -> None:
    """How the amplitude follows the number that is moved, from each place."""
    low, high = amplitude_range(family)
    # the noise of a real curve moves its fitted amplitude by about half of itself
    axes.axhspan(low - NOISE / 2, high + NOISE / 2, color=TARGET, alpha=0.4, lw=0)
    for each in amplitudes[1:]:
        axes.plot(values, each, color=GREY, lw=1.0, alpha=0.7)
    axes.plot(values, amplitudes[0], color="black", lw=2.0)
    tidy(axes)
