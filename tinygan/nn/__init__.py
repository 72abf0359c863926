"""Networks by hand: layers with forward, backward, jvp and the reverse of the jvp."""

from tinygan.nn.activations import LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from tinygan.nn.batchnorm import BatchNorm
from tinygan.nn.cache import Cache
from tinygan.nn.condition import Condition
from tinygan.nn.conv import Conv2D, ConvTranspose2D
from tinygan.nn.dense import Dense
from tinygan.nn.dropout import Dropout
from tinygan.nn.layer import Layer, View
from tinygan.nn.layernorm import LayerNorm
from tinygan.nn.maxout import Maxout
from tinygan.nn.network import Network
from tinygan.nn.pool import MaxPool2D, UpSample
from tinygan.nn.sequential import Sequential
from tinygan.nn.shape import Flatten, Pack, Reshape

__all__ = [
    "BatchNorm",
    "Cache",
    "Condition",
    "Conv2D",
    "ConvTranspose2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "Maxout",
    "Network",
    "Pack",
    "ReLU",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "UpSample",
    "View",
]
