"""From the options of a command line to an open run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tinygan.gan import Game
from tinygan.run.checkpoint import Stateful
from tinygan.run.folder import Manifest
from tinygan.run.loop import Run, say
from tinygan.run.options import Options


def open_run(
    options: Options,
    manifest: Manifest,
    parts: Mapping[str, Stateful],
    game: Game,
    sample: Callable[[], np.ndarray],
    images: int,
) -> Run:
    """The run that `options` ask for, new or resumed, over `images` training images."""
    preset = options.preset
    if options.data == "auto" and manifest["options"]["data"] == "strokes":
        say(
            "NO MNIST HERE AND NO MIRROR ANSWERS: training on digits drawn from strokes instead "
            "(for MNIST give --data-dir DIR or set TINYGAN_DATA)"
        )
    return Run(
        options.folder,
        manifest,
        parts,
        total_steps=options.total_steps(images),
        steps_per_epoch=options.steps_per_epoch(images),
        images_per_step=preset.batch_size * preset.k,
        value_range=preset.value_range,
        grid=preset.grid,
        metrics=game.metrics,
        sample=sample,
        diagnose=game.first_nonfinite,
        sample_every=options.sample_every,
        checkpoint_every=options.checkpoint_every,
        log_every=options.log_every,
        keep_last=options.keep_last,
        keep_every=options.keep_every,
        resume=options.resume,
        from_step=options.from_step,
    )
