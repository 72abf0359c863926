"""Layers one after another: the chain rule. Derivation: docs/vjp.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.errors import ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import Layer, Shape
from tinygan.nn.shape import Reshape


class Sequential(Layer):
    """y = f_n(... f_1(x)); the i-th layer's call-site memory is cache[i]."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        self.layers = layers
        # An input's gradient below the first layer with parameters is the caller's, if anybody's.
        self._first = next((i for i, f in enumerate(layers) if _has_parameters(f)), len(layers))

        shaped = [layer for layer in layers if not isinstance(layer, Reshape)]
        self.reach = shaped[-1].reach if shaped else None

    def children(self) -> list[tuple[str, Layer]]:
        return [(str(i), layer) for i, layer in enumerate(self.layers)]

    def output_shape(self, shape: Shape) -> Shape:
        for i, layer in enumerate(self.layers):
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise ShapeError(f"layer {i} {error}") from None
        return shape

    def shapes(self, shape: Shape) -> list[tuple[str, Shape]]:
        story: list[tuple[str, Shape]] = []
        for i, layer in enumerate(self.layers):
            story += [(f"{i} {words}", made) for words, made in layer.shapes(shape)]
            shape = story[-1][1]
        return story

    def forward(self, x: Array, cache: Cache) -> Array:
        for i, layer in enumerate(self.layers):
            cache[i].lends = cache.whole and cache.train and not self._is_needed_behind(i, cache)
            x = layer.forward(x, cache[i])
        return x

    def _is_needed_behind(self, i: int, cache: Cache) -> bool:
        """Whether somebody reads the output of layer i when the next layer has made its own."""
        if i + 1 == len(self.layers):
            return True
        made, read = self.layers[i].needs(cache[i]), self.layers[i + 1].needs(cache[i + 1])
        return "y" in made or "x" in read

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        for i in reversed(range(0 if input_grad else self._first, len(self.layers))):
            more = input_grad or i > self._first
            # A chain inside a layer lends nothing: in x + f(x), dy is needed again behind f.
            cache[i].passes_on = cache.whole and i > self._first  # [vjp.6]
            dy = self.layers[i].backward(dy, cache[i], param_grads, more)  # [vjp.1]
        return dy if input_grad else None

    def jvp(self, t: Array, cache: Cache) -> Array:
        for i, layer in enumerate(self.layers):
            t = layer.jvp(t, cache[i])  # [vjp.2]
        return t

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        for i in reversed(range(len(self.layers))):
            dy, dty = self.layers[i].jvp_backward(dy, dty, cache[i], param_grads)  # [vjp.3]
        return dy, dty

    def update_statistics(self, cache: Cache) -> None:
        for i, layer in enumerate(self.layers):
            layer.update_statistics(cache[i])

    def __repr__(self) -> str:
        return f"Sequential of {len(self.layers)} layers"


def _has_parameters(layer: Layer) -> bool:
    return bool(layer.parameters) or any(_has_parameters(child) for _, child in layer.children())
