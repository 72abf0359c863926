"""The game: objectives, and the paper's Algorithm 1."""

from tinygan.gan.algorithm1 import ORDERS, Game, alternating, paper, simultaneous
from tinygan.gan.objectives import Objective, make_objective

__all__ = ["ORDERS", "Game", "Objective", "alternating", "make_objective", "paper", "simultaneous"]
