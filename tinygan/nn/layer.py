"""What a layer is: parameters it owns, and four passes that read and write a call site's cache."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

from tinygan.backend import Array
from tinygan.errors import OptionError, ShapeError
from tinygan.nn.cache import Cache
from tinygan.noise import Noise

Shape = tuple[int, ...]  # without the batch dimension N
Initialiser = Callable[[Noise, str, Shape], Array]  # (noise, purpose, shape) -> array


def require_sizes(layer: object, **sizes: object) -> None:
    """Raise OptionError unless all are whole numbers above 0."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            kind = type(layer).__name__
            raise OptionError(f"{kind}: {name} is a whole number above 0, not {size!r}")


class View:
    """A layer's named window on its network's flat arrays: `layer.W`, `layer.dW`.

    Assignment copies in, so that no statement can tear a layer off its network.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        try:
            return layer.views[self.name]
        except KeyError:
            raise AttributeError(
                f"{layer} has no {self.name} yet: a Network gives layers their parameters"
            ) from None

    def __set__(self, layer: Any, value: Any) -> None:
        layer.views[self.name][...] = value


class Layer:
    """One differentiable map, with its derivative passes side by side.

    forward           y = f(x)                       keeps in the cache what backward needs
    backward          dx = Jᵀdy                      adds the parameters' gradients
    jvp               ty = J t                       the derivative along t
    jvp_backward      (dy, dty) -> (dx, dt)          the reverse of (x, t) -> (y, ty)

    In jvp_backward, None stands for an exact zero: piecewise-linear layers skip the half for x.
    A layer knows its arguments and its cache; not its neighbours, nor its place.
    """

    # The range of the output, where the layer bounds it.
    reach: tuple[float, float] | None = None
    # Whether an output depends on other samples of the batch: then D(x) has no slope of its own,
    # for a penalty [bn.6] or for both players [alg.8]. A layer that does must say so.
    couples_samples: bool = False
    # Whether it is a convolution, for which a backend may want to make itself ready.
    convolves: bool = False
    # How many samples, one after another, make one output.
    pack: int = 1

    def __init__(self) -> None:
        self.views: dict[str, Array] = {}
        # name -> (shape, initialiser) and name -> (shape, start value); a Network lays them out.
        self.parameters: dict[str, tuple[Shape, Initialiser]] = {}
        self.statistics: dict[str, tuple[Shape, float]] = {}

    def needs(self, cache: Cache) -> str:
        """What the other passes read of a forward pass in training: "x", "y", "xy" or nothing.

        Or what forward hands on: where y is a view of x, both are needed. Beside them there is
        what a layer itself has made and kept. Between layers, what nobody needs is lent [vjp.7].
        A subclass of a layer that says less, and reads more, must say so.
        """
        return "xy"

    def children(self) -> list[tuple[str, Layer]]:
        """Layers inside this one, by the key of their place."""
        return []

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one output for one input of `shape`; ShapeError if it cannot take it."""
        return shape

    def shapes(self, shape: Shape) -> list[tuple[str, Shape]]:
        """(layer in words, shape of what it makes), from the first inside this one to the last."""
        return [(repr(self), self.output_shape(shape))]

    def forward(self, x: Array, cache: Cache) -> Array:
        raise NotImplementedError(f"{self} has no forward")

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        """dx = Jᵀdy; with `input_grad=False` a layer with parameters may return None."""
        raise NotImplementedError(f"{self} has no backward")

    def jvp(self, t: Array, cache: Cache) -> Array:
        raise NotImplementedError(f"{self} has no jvp")

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        raise NotImplementedError(f"{self} has no jvp_backward")

    def update_statistics(self, cache: Cache) -> None:
        """Move running statistics towards the batch seen at this call site."""

    def expect(self, ok: bool, expected: str, shape: Shape) -> None:
        """Raise the ShapeError that names this layer, unless `ok`."""
        if not ok:
            given = ", ".join(["N", *map(str, shape)])
            raise ShapeError(f"{self} expects {expected}, got ({given})")

    def __repr__(self) -> str:
        return type(self).__name__


class PiecewiseLinear(Layer):
    """A layer without parameters whose Jacobian J does not change with x, but for jumps.

    Then the way back is Jᵀ alone: for dy in backward, and for dy and dty apart in the reverse of
    the jvp, where nothing bends [vjp.3].
    """

    def transposed(self, dy: Array, cache: Cache, name: str) -> Array:
        """Jᵀdy, in this call site's memory called `name`."""
        raise NotImplementedError(f"{self} has no backward")

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        return self.transposed(dy, cache, "dx")

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dx = None if dy is None else self.backward(dy, cache)
        return dx, self.transposed(dty, cache, "dt")
