"""Everything that is not mathematics: options, run folder, checkpoints, log, pictures."""

from tinygan.run.arguments import one_line_errors
from tinygan.run.loop import Run
from tinygan.run.open import load_images, load_points, make_game, open_run
from tinygan.run.options import Options, parse_options

__all__ = [
    "Options",
    "Run",
    "load_images",
    "load_points",
    "make_game",
    "one_line_errors",
    "open_run",
    "parse_options",
]
