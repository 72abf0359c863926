"""A player for other libraries: its tensors by name, and in the metadata what the layers are.

docs/interoperability.md loads such a file in PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy

from tinygan import __version__
from tinygan.nn.layer import Layer, Shape
from tinygan.nn.network import Network
from tinygan.nn.sequential import Sequential
from tinygan.run.rebuild import Player

FORMAT = 1
# What the axes of each tensor are, by the kind of layer that owns it. A Maxout's are those of its
# Dense, piece by piece; BatchNorm's four tensors are all (channels).
AXES: dict[str, dict[str, list[str]]] = {
    "Dense": {"W": ["in", "out"], "b": ["out"]},
    "Conv2D": {"W": ["kernel height", "kernel width", "in", "out"], "b": ["out"]},
    "ConvTranspose2D": {"W": ["kernel height", "kernel width", "out", "in"], "b": ["out"]},
    "Condition": {"W": ["class", "embedding"]},
}
# The options of a layer that its tensors do not show.
OPTIONS = (
    *("slope", "momentum", "eps", "keep", "pieces", "classes", "embedding"),
    *("kernel", "stride", "size", "factor", "m"),
)


def describe_player(player: Player) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of G or D, as its checkpoint names them, and the words that go with them."""
    network, preset = player.network, player.preset
    about = {
        "format": FORMAT,
        "made_by": f"tinygan {__version__}",
        "player": network.name,
        "preset": preset.name,
        "weights": player.describe(),
        **_of_samples(player),
        "input": list(network.input_shape),
        "output": list(network.output_shape),
        "layers": describe_layers(network),
    }
    return network.state(), about


def _of_samples(player: Player) -> dict[str, Any]:
    """What the axes of a sample are, and the way to the user's own numbers."""
    if player.preset.kind == "images":
        axes, value_range = "N, height, width, channels", list(player.preset.value_range)
        return {"images": axes, "value_range": value_range}
    data = player.manifest["data"]
    return {player.preset.kind: "N, D", "scale": data.get("scale"), "shift": data.get("shift")}


def describe_layers(network: Network) -> list[dict[str, Any]]:
    """Each layer in order: place, kind, in words, shapes without N, options, tensors."""
    tensors = {
        path + name: (type(layer).__name__, name, layer.views[name].shape)
        for path, layer in network.layers()
        for name in (*layer.parameters, *layer.statistics)
    }
    layers, shape = [], network.input_shape
    for place, layer in _in_order(network.body, ""):
        given, shape = shape, layer.output_shape(shape)
        layers.append(_describe(layer, place, given, shape))
        layers[-1]["tensors"] = {
            full.removeprefix(place): {
                "name": full,
                "shape": list(size),
                "axes": AXES.get(kind, {}).get(name, ["channels"]),
            }
            for full, (kind, name, size) in tensors.items()
            if full.startswith(place)
        }
    return layers


def _in_order(layer: Layer, place: str) -> Iterator[tuple[str, Layer]]:
    """The layers that data pass through, one after another, chains within chains opened."""
    if not isinstance(layer, Sequential):
        yield place, layer
        return
    for key, child in layer.children():
        yield from _in_order(child, f"{place}{key}.")


def _describe(layer: Layer, place: str, given: Shape, shape: Shape) -> dict[str, Any]:
    options = {name: getattr(layer, name) for name in OPTIONS if hasattr(layer, name)}
    if (geometry := getattr(layer, "geometry", None)) is not None:
        options["before"] = geometry.before  # padding above and to the left, in the larger image
    words = {"place": place.rstrip("."), "kind": type(layer).__name__, "words": repr(layer)}
    return {**words, "input": list(given), "output": list(shape), **options}


def to_safetensors(tensors: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    """One file's content: the tensors, contiguous, and `about` as JSON under "tinygan"."""
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {"tinygan": json.dumps(about, allow_nan=False)}
    return bytes(safetensors.numpy.save(whole, metadata))
