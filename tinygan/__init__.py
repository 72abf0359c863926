"""tinygan: generative adversarial networks with every gradient derived by hand."""

from tinygan.backend import get_backend
from tinygan.gan import Game, alternating, make_objective, paper, simultaneous
from tinygan.nn import Network, Sequential
from tinygan.noise import Noise
from tinygan.optim import SGD, Adam

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Game",
    "Network",
    "Noise",
    "Sequential",
    "alternating",
    "get_backend",
    "make_objective",
    "paper",
    "simultaneous",
]
