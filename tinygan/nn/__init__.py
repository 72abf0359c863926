"""Networks by hand: layers with forward, backward, jvp and the reverse of the jvp."""

from tinygan.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from tinygan.nn.batchnorm import BatchNorm
from tinygan.nn.cache import Cache
from tinygan.nn.dense import Dense
from tinygan.nn.dropout import Dropout
from tinygan.nn.layer import Layer, View
from tinygan.nn.maxout import Maxout
from tinygan.nn.network import Network
from tinygan.nn.sequential import Sequential
from tinygan.nn.shape import Flatten, Reshape

__all__ = [
    "BatchNorm",
    "Cache",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "Maxout",
    "Network",
    "ReLU",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "View",
]
