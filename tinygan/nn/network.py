"""A network: a tree of layers whose parameters are views into one flat array. See docs/vjp.md."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from tinygan.backend import Array, Backend, require_numpy
from tinygan.errors import CheckpointError, ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, Shape
from tinygan.noise import Noise


class Network:
    """G or D: `body` maps (N, *input_shape) to (N, *output_shape).

    All parameters lie in one flat array `parameters`; `gradients` and `statistics` (BatchNorm's
    running ones) are laid out alike. An optimiser is then one expression over one array, while
    `named_parameters()` and each layer's `W` and `dW` stay named views into it.
    Gradients accumulate: `gradients.fill(0)` starts a new one. Raises ShapeError, naming the
    layer, if the layers do not fit one another.
    """

    def __init__(
        self,
        body: Layer,
        input_shape: Shape,
        backend: Backend,
        name: str = "network",
        noise: Noise | None = None,
    ) -> None:
        self.body, self.input_shape, self.name = body, input_shape, name
        try:
            self.output_shape = body.output_shape(input_shape)
        except ShapeError as error:
            given = f"({', '.join(['N', *map(str, input_shape)])})"
            story = "" if str(error).endswith(given) else f", for an input {given}"
            raise ShapeError(f"{name} {error}{story}") from None
        self.bind(backend)
        self.initialise(noise if noise is not None else Noise(0, backend))

    def bind(self, backend: Backend) -> None:
        """Lay every layer's parameters, gradients and statistics into flat arrays: [vjp.5]."""
        self.backend = backend
        layers = list(self.layers())
        if any(layer.convolves for _, layer in layers):
            backend.expect_convolutions()
        if len({id(layer) for _, layer in layers}) < len(layers):
            raise ShapeError(f"{self.name} has one layer object at two places: make two layers")
        count = sum(_count(s) for _, f in layers for s, _ in f.parameters.values())
        n_statistics = sum(_count(s) for _, f in layers for s, _ in f.statistics.values())
        self.parameters = backend.zeros((count,))
        self.gradients = backend.zeros((count,))
        self.statistics = backend.zeros((n_statistics,))
        at = at_statistics = 0
        for _, layer in layers:
            layer.views.clear()
            for name, (shape, _) in layer.parameters.items():
                part = slice(at, at + _count(shape))
                layer.views[name] = self.parameters[part].reshape(shape)
                layer.views["d" + name] = self.gradients[part].reshape(shape)
                at = part.stop
            for name, (shape, start) in layer.statistics.items():
                part = slice(at_statistics, at_statistics + _count(shape))
                layer.views[name] = self.statistics[part].reshape(shape)
                layer.views[name].fill(start)
                at_statistics = part.stop

    def initialise(self, noise: Noise) -> None:
        """Draw every parameter anew; the draw depends on the seed and the parameter's name."""
        for path, layer in self.layers():
            for name, (shape, draw) in layer.parameters.items():
                layer.views[name][...] = draw(noise, f"{self.name}/{path}{name}", shape)

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """(place, layer) for every layer of the tree, places like "3." or "1.dense."."""
        todo = [("", self.body)]
        while todo:
            path, layer = todo.pop()
            yield path, layer
            todo += [(f"{path}{key}.", child) for key, child in reversed(layer.children())]

    @property
    def parameter_count(self) -> int:
        return int(self.parameters.size)

    # ---- the four passes -----------------------------------------------------------------------

    def cache(
        self,
        name: str,
        train: bool = True,
        noise: Noise | None = None,
        check: bool = False,
    ) -> Cache:
        """A new call site; `name` enters the draws of its dropout masks."""
        return Cache(self.backend, name, train=train, noise=noise, check=check)

    def forward(self, x: Array, cache: Cache) -> Array:
        """y (N, *output_shape), a loan until the next forward with this cache.

        Raises TypeError for an array of another library, ShapeError for another shape.
        """
        self.backend.check(x, f"the input of {self.name}")
        if x.shape[1:] != self.input_shape or x.dtype != self.backend.dtype:
            expected = ", ".join(["N", *map(str, self.input_shape)])
            raise ShapeError(
                f"{self.name} expects ({expected}) {self.backend.dtype}, got {x.shape} {x.dtype}"
            )
        return self.body.forward(x, cache)

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        """dx = Jᵀdy; adds to `gradients` unless `param_grads=False`."""
        return self.body.backward(dy, cache, param_grads, input_grad)

    def jvp(self, t: Array, cache: Cache) -> Array:
        """ty = J t at the x of the last forward with this cache."""
        return self.body.jvp(t, cache)

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        """(dx, dt): the reverse of (x, t) -> (y, ty); None means zero."""
        return self.body.jvp_backward(dy, dty, cache, param_grads)

    def update_statistics(self, cache: Cache) -> None:
        """Let the running statistics take in the batch seen at this call site."""
        self.body.update_statistics(cache)

    # ---- parameters by name ------------------------------------------------------------------

    def named_parameters(self) -> dict[str, Array]:
        """Views by name, such as "3.W"."""
        return {
            path + name: layer.views[name]
            for path, layer in self.layers()
            for name in layer.parameters
        }

    def named_statistics(self) -> dict[str, Array]:
        """Views by name, such as "2.running_mean"."""
        return {
            path + name: layer.views[name]
            for path, layer in self.layers()
            for name in layer.statistics
        }

    def state(self) -> dict[str, Any]:
        """Every parameter and running statistic by name, as NumPy arrays (copies)."""
        views = self.named_parameters() | self.named_statistics()
        return {name: self.backend.to_host(view) for name, view in views.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a `state()`; CheckpointError, before anything is copied, if it is not ours."""
        views = self.named_parameters() | self.named_statistics()
        if missing := sorted(views.keys() ^ state.keys()):
            side = "is missing in" if missing[0] in views else "is unknown to"
            place = "the checkpoint" if missing[0] in views else self.name
            raise CheckpointError(f"{self.name}: tensor {missing[0]} {side} {place}")
        for name, view in views.items():
            require_numpy(state[name], f"{self.name}: tensor {name}")
            if tuple(state[name].shape) != view.shape:
                raise CheckpointError(
                    f"{self.name}: tensor {name} has shape {view.shape} here "
                    f"and {tuple(state[name].shape)} in the checkpoint: another architecture"
                )
        for name, view in views.items():
            view[...] = self.backend.from_host(state[name])

    def copy(self, backend: Backend | None = None) -> Network:
        """An independent network of the same values; `backend` may change dtype or device."""
        twin = copy.copy(self)
        twin.body = copy.deepcopy(self.body)
        twin.bind(backend or self.backend)
        twin.load(self.state())
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self.copy()

    def first_nonfinite(self) -> str | None:
        """Where the first NaN or infinity stands, in words, or None."""
        xp = self.backend.xp
        for path, layer in self.layers():
            for name in (*layer.parameters, *layer.statistics):
                if not bool(xp.isfinite(layer.views[name]).all()):
                    return f"{self.name} layer {path.rstrip('.')} {layer}: {name}"
        return None

    def __repr__(self) -> str:
        return f"{self.name} ({self.parameter_count:,} parameters)"


def _count(shape: Shape) -> int:
    return math.prod(shape)
