"""Narrow copies of the presets: their layers in their order, few enough units for differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygan import Game, Network, Noise, make_objective
from tinygan.backend import Backend
from tinygan.nn import BatchNorm, Dense, Layer, Maxout, Reshape, Sequential
from tinygan.presets import Preset

# Every width of the presets -> a small one. Different widths stay different, bar the widest.
WIDTH = {1: 1, 100: 3, 128: 4, 240: 3, 256: 5, 512: 6, 784: 12, 1024: 7, 1200: 7}
IMAGE = (4, 3, 1)
PIXEL_MEANS = np.linspace(0.2, 0.8, 12)


def narrow(layer: Layer) -> Layer:
    if isinstance(layer, Sequential):
        return Sequential(*map(narrow, layer.layers))
    if isinstance(layer, Dense):
        initialisers = {name: draw for name, (_, draw) in layer.parameters.items()}
        return Dense(WIDTH[layer.n_in], WIDTH[layer.n_out], **initialisers)
    if isinstance(layer, Maxout):
        return Maxout(WIDTH[layer.dense.n_in], WIDTH[layer.units], layer.pieces)
    if isinstance(layer, BatchNorm):
        return BatchNorm(WIDTH[layer.n], layer.momentum, layer.eps)
    if type(layer) is Reshape:
        return Reshape(*IMAGE)
    return layer  # activations, Dropout and Flatten have no width


def players(preset: Preset, backend: Backend, seed: int = 0) -> tuple[Network, Network, Noise]:
    """G, D and the noise; weights moved off the small values that would hide their part."""
    noise = Noise(seed, backend, step=1)
    G = Network(narrow(preset.generator(PIXEL_MEANS)), (WIDTH[100],), backend, "G", noise)
    D = Network(narrow(preset.discriminator()), IMAGE, backend, "D", noise)
    for net in (G, D):
        net.parameters += noise.normal(f"test {net.name}", net.parameters.shape, std=0.4)
    return G, D, noise


def game_of(preset: Preset, backend: Backend, m: int = 4, seed: int = 0, **objective: Any) -> Game:
    """A game of narrow players; z and x are functions of where the noise stands."""
    G, D, noise = players(preset, backend, seed)
    options = {"name": preset.objective, "loss": preset.loss, "halved": preset.halved} | objective
    return Game(
        G,
        D,
        make_objective(**options),
        lambda: noise.normal("z", (m, *G.input_shape)),
        lambda: noise.uniform("x", (m, *IMAGE), *preset.value_range),
        noise,
    )
