"""The game: objectives, penalties, and the paper's Algorithm 1."""

from tinygan.gan.algorithm1 import ORDERS, Game, alternating, paper, simultaneous
from tinygan.gan.constraints import clip_weights
from tinygan.gan.objectives import Objective, make_objective
from tinygan.gan.penalties import Penalty, make_penalty

__all__ = [
    "ORDERS",
    "Game",
    "Objective",
    "Penalty",
    "alternating",
    "clip_weights",
    "make_objective",
    "make_penalty",
    "paper",
    "simultaneous",
]
