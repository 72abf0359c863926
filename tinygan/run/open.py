"""From the options of a command line to data, a game and an open run folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinygan.backend import Array
from tinygan.data import (
    CURVES,
    Dataset,
    Minibatches,
    PointBatches,
    PointSet,
    load_curves,
    load_dataset,
    load_world,
)
from tinygan.errors import DataError
from tinygan.gan import Game, make_objective, make_penalty
from tinygan.nn import Network
from tinygan.noise import Noise
from tinygan.optim import Optimiser
from tinygan.presets import Preset
from tinygan.run.loop import Run, say
from tinygan.run.manifest import make_manifest, other_threads
from tinygan.run.options import Options
from tinygan.run.pictures import write_grid
from tinygan.run.readings import Readings

Draw = Callable[[Path, np.ndarray], np.ndarray]


def load_images(options: Options) -> Dataset:
    """The training images that the options ask for, as many and as large as the preset has them."""
    data = load_dataset(options.data, "train", options.data_dir)
    return data.first(options.preset.train_images).padded(options.preset.image_size)


def load_points(options: Options) -> PointSet:
    """The points of a plane, or the curves, that the options ask for."""
    if options.data_dir is not None:
        raise DataError(f"--data-dir holds images, which {options.preset.name} does not take")
    return load_curves(options.data) if options.data in CURVES else load_world(options.data)


def make_game(
    recipe: Preset, G: Network, D: Network, data: Dataset | PointSet, noise: Noise
) -> Game:
    """What the players want, and what they are shown, as the recipe says."""
    objective = make_objective(
        recipe.objective,
        recipe.loss,
        recipe.halved,
        real_target=recipe.real_target,
        flipped=recipe.flipped,
        label_noise=recipe.label_noise,
    )
    penalty = None
    if recipe.penalty is not None:  # its weight is that of papers, whose losses are not halved
        share = 0.5 if recipe.halves_loss else 1.0
        penalty = make_penalty(recipe.penalty, share * recipe.penalty_weight)
    told, m = recipe.labels.classes > 0, recipe.samples_per_batch
    sample, labels_of_x = _batches(recipe, data, m, noise, G)

    def draw_noise() -> Array:
        return recipe.draw_latent(noise, "z", m)

    def draw_labels() -> Array:
        return recipe.draw_labels(noise, "labels", m)

    return Game(
        G,
        D,
        objective,
        draw_noise,
        sample,
        noise,
        draw_labels=draw_labels if told else None,
        labels_of_x=labels_of_x,
        combined=recipe.combined,
        penalty=penalty,
        instance_noise=recipe.instance_noise,
    )


def _batches(
    recipe: Preset, data: Dataset | PointSet, m: int, noise: Noise, G: Network
) -> tuple[Callable[[], Array], Callable[[], Array] | None]:
    """What draws minibatches of m and, where the players are told labels, the labels of these."""
    if isinstance(data, PointSet):
        return PointBatches(data.points, m, noise, recipe.k, recipe.replacement), None
    told = recipe.labels.classes > 0
    sample = Minibatches(
        data.images,
        m,
        noise,
        recipe.value_range,
        recipe.k,
        recipe.replacement,
        reach=G.body.reach,
        labels=data.labels if told else None,
        classes=recipe.labels.classes if told else None,
    )
    return sample, sample.labels if told else None


def open_run(
    options: Options,
    data: Dataset | PointSet,
    game: Game,
    G_optimiser: Optimiser,
    D_optimiser: Optimiser,
    draw: Draw | None = None,
) -> Run:
    """The run that `options` ask for, new or resumed, on `data`; `draw`: its own pictures.

    Raises DataError or OptionError when a resumed run was started on other data or elsewhere.
    """
    preset = options.preset
    manifest = make_manifest(options, game.G.backend, data)
    on_numpy = game.G.backend.name == "numpy"
    if on_numpy and options.recorded and (note := other_threads(options.recorded)):
        say(note)
    if options.data == "auto" and manifest["options"]["data"] == "strokes":
        say(
            "NO MNIST HERE AND NO MIRROR ANSWERS: training on digits drawn from strokes instead "
            "(for MNIST give --data-dir DIR or set TINYGAN_DATA)"
        )
    return Run(
        options.folder,
        manifest,
        parts={
            "G": game.G,
            "D": game.D,
            "G_optimiser": G_optimiser,
            "D_optimiser": D_optimiser,
        },
        schedule=options.schedule(len(data)),
        readings=Readings(game.measure, game.G.backend),
        sample=grid_sampler(preset, game.G, game.noise),
        draw=draw or picture_of(preset, data, game),
        diagnose=game.first_nonfinite,
        resume=options.resume,
        from_step=options.from_step,
        tensorboard=options.tensorboard,
        histograms=lambda: _arrays(game),
    )


def picture_of(preset: Preset, data: Dataset | PointSet, game: Game) -> Draw:
    """What draws the samples of this kind into a file."""
    if isinstance(data, PointSet) and preset.kind == "curves":
        from tinygan.run.sine_pictures import SinePicture  # these two load matplotlib

        return SinePicture(data, preset)
    if isinstance(data, PointSet):
        from tinygan.run.plane import PlanePicture

        return PlanePicture(data, game, preset.packing)
    return lambda path, images: write_grid(path, images, preset.grid, preset.value_range)


def grid_sampler(preset: Preset, G: Network, noise: Noise) -> Callable[[], np.ndarray]:
    """A function that shows a fixed batch of noise, again and again, in evaluation mode.

    With labels, every column of the grid is one class.
    """
    z = preset.draw_latent(noise.at(step=0), "sample grid", math.prod(preset.grid))
    look = G.cache("look", train=False)
    if preset.labels.classes:
        look.condition = preset.grid_labels(G.backend)
    return lambda: G.backend.to_host(G.forward(z, look))


def _arrays(game: Game) -> dict[str, np.ndarray]:
    """The weights of both players by name and, once D has judged, its logits."""
    arrays = {}
    for net in (game.G, game.D):
        for name, view in net.named_parameters().items():
            arrays[f"{net.name}/{name}"] = net.backend.to_host(view)
    for name in ("real_logits", "fake_logits"):
        if hasattr(game, name):
            arrays[f"logits/{name[:4]}"] = game.D.backend.to_host(getattr(game, name))
    return arrays
