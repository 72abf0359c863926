"""Narrow copies of the presets: their layers in their order, few enough units for differences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tinygan import Game, Network, Noise, make_objective
from tinygan.backend import Backend
from tinygan.gan import make_penalty
from tinygan.nn import (
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    Maxout,
    Reshape,
    Sequential,
)
from tinygan.presets import DCGANS, Labels, Preset

# Every width of the presets -> a small one. Different widths stay different, bar the widest.
WIDTH = {1: 1, 16: 2, 32: 4, 64: 3, 100: 3, 128: 4, 240: 3, 256: 5, 512: 6, 784: 12, 1024: 7}
WIDTH[1200] = 7
TOYS = {1: 1, 2: 2, 5: 3, 15: 4, 128: 8, 200: 3, 400: 5}  # the widths of points and curves
PIXEL_MEANS = np.linspace(0.2, 0.8, 12)
# Where G's images begin to grow, so many pixels wide -> so many in the copy. The whole image is
# then 8×8, for dcgan-pool 12×12, so that something is left to pool twice.
BEGIN = {"dcgan-tf": (7, 2), "dcgan-radford": (7, 2), "dcgan-radford-32": (4, 1)}
BEGIN |= {"dcgan-pool": (7, 3)}


def image_shape(preset: Preset) -> tuple[int, ...]:
    """Of one example, be it an image or not."""
    if preset.kind != "images":
        return (TOYS[2] if preset.kind == "points" else TOYS[15],)
    if preset.name not in DCGANS:
        return (4, 3, 1)
    wide, few = BEGIN[preset.name]
    size = (preset.image_size or 28) * few // wide
    return (size, size, 1)


def widths(preset: Preset) -> dict[int, int]:
    return WIDTH if preset.kind == "images" else TOYS


class Narrowing:
    """Makes the narrow copies of one preset's layers."""

    def __init__(self, preset: Preset) -> None:
        self.labels, self.packing = preset.labels, preset.packing
        self.widths = widths(preset)
        self.image = image_shape(preset)
        self.begin, self.few = BEGIN.get(preset.name, (0, 0))
        self.pixels = {self.begin**2: self.few**2, 2 * 2: 1}  # of what Dense makes or takes

    def width(self, n: int) -> int:
        if n in self.widths:
            return self.widths[n]
        if n - self.labels.width in self.widths:  # the labels have joined
            return self.widths[n - self.labels.width] + self.labels.width
        if n % self.packing == 0 and n // self.packing in self.widths:
            return self.packing * self.widths[n // self.packing]
        for pixels, few in self.pixels.items():
            if n % max(pixels, 1) == 0 and n // max(pixels, 1) in self.widths:
                return few * self.widths[n // pixels]
        raise KeyError(n)

    def __call__(self, layer: Layer) -> Layer:
        if isinstance(layer, Sequential):
            return Sequential(*map(self, layer.layers))
        initialisers = {name: draw for name, (_, draw) in layer.parameters.items()}
        if isinstance(layer, Dense):
            return Dense(
                self.width(layer.n_in), self.width(layer.n_out), **{"b": None, **initialisers}
            )
        if isinstance(layer, (Conv2D, ConvTranspose2D)):
            return self._convolution(layer, {"b": None, **initialisers})
        if isinstance(layer, Maxout):
            return Maxout(self.width(layer.dense.n_in), self.width(layer.units), layer.pieces)
        if isinstance(layer, BatchNorm):
            norm = BatchNorm(self.width(layer.n), layer.momentum, layer.eps)
            norm.parameters["gamma"] = ((norm.n,), initialisers["gamma"])
            return norm
        if isinstance(layer, LayerNorm):
            return LayerNorm(self.width(layer.n), layer.eps)
        if isinstance(layer, Reshape) and not isinstance(layer, Flatten):
            return self._reshape(layer)
        return layer  # activations, Dropout, pooling, Condition and Flatten have no width

    def _convolution(self, layer: Any, initialisers: dict[str, Any]) -> Layer:
        kernel = layer.kernel
        if layer.padding == "VALID":  # between one pixel and the place where images begin
            assert tuple(kernel) == (self.begin, self.begin)
            kernel = self.few
        return type(layer)(
            self.width(layer.c_in),
            self.width(layer.c_out),
            kernel,
            layer.stride,
            layer.padding,
            **initialisers,
        )

    def _reshape(self, layer: Reshape) -> Layer:
        height, width, channels = layer.shape
        if (height, width) == (1, 1):
            return Reshape(1, 1, self.width(channels))
        if (height, width) == (self.begin, self.begin):
            return Reshape(self.few, self.few, self.width(channels))
        return Reshape(*self.image)


def narrow(preset: Preset, body: Sequential) -> Sequential:
    """The narrow copy of G's or D's layers."""
    copy = Narrowing(preset)(body)
    assert isinstance(copy, Sequential)
    return copy


def with_labels(preset: Preset, embedding: int | None = None) -> Preset:
    """The preset, conditional on labels of few classes."""
    return dataclasses.replace(preset, labels=Labels(4, embedding))


def players(preset: Preset, backend: Backend, seed: int = 0) -> tuple[Network, Network, Noise]:
    """G, D and the noise; weights moved off the small values that would hide their part."""
    noise, image = Noise(seed, backend, step=1), image_shape(preset)
    G_body = narrow(preset, preset.generator(PIXEL_MEANS, preset.labels))
    D_body = narrow(preset, preset.make_discriminator())
    G = Network(G_body, (widths(preset)[preset.latent],), backend, "G", noise)
    D = Network(D_body, image, backend, "D", noise)
    for net in (G, D):
        net.parameters += noise.normal(f"test {net.name}", net.parameters.shape, std=0.4)
    return G, D, noise


def game_of(preset: Preset, backend: Backend, m: int = 4, seed: int = 0, **objective: Any) -> Game:
    """A game of narrow players; z, x and labels are functions of where the noise stands."""
    G, D, noise = players(preset, backend, seed)
    m *= preset.packing
    options = {"name": preset.objective, "loss": preset.loss, "halved": preset.halved}
    options |= {"flipped": preset.flipped, "label_noise": preset.label_noise}
    options |= {"real_target": preset.real_target} | objective
    told = preset.labels.classes > 0
    return Game(
        G,
        D,
        make_objective(**options),
        lambda: noise.normal("z", (m, *G.input_shape)),
        lambda: noise.uniform("x", (m, *D.input_shape), *preset.value_range),
        noise,
        draw_labels=(lambda: preset.draw_labels(noise, "labels", m)) if told else None,
        labels_of_x=(lambda: preset.draw_labels(noise, "labels of x", m)) if told else None,
        combined=preset.combined,
        penalty=make_penalty(preset.penalty, preset.penalty_weight) if preset.penalty else None,
        instance_noise=preset.instance_noise,
    )
