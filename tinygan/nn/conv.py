"""Convolution and transposed convolution: one trilinear form, read in two directions.

Derivation: docs/convolution.md, docs/transposed-convolution.md.
"""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.backend.convolution import Convolution
from tinygan.backend.geometry import (
    Geometry,
    Padding,
    Pair,
    check_options,
    conv_geometry,
    pair,
    transposed_geometry,
)
from tinygan.errors import OptionError, ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.initialisers import glorot_uniform, zeros
from tinygan.nn.layer import Initialiser, Layer, Shape, View, require_sizes


class Conv2D(Layer):
    """y = x * w + b: x (N, H, W, c_in), W (kh, kw, c_in, c_out), b (c_out,), y (N, P, Q, c_out).

    As everywhere in this field the kernel is not flipped (it is a cross-correlation). `padding` is
    "SAME" (TensorFlow's), "VALID", a number for all sides, or ((top, bottom), (left, right)).
    """

    W, b, dW, db = View(), View(), View(), View()
    convolves = True

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: Padding = "SAME",
        W: Initialiser = glorot_uniform,
        b: Initialiser | None = zeros,
    ) -> None:
        """`W` and `b` are initialisers; `b=None` leaves the bias out."""
        self._define(c_in, c_out, kernel, stride, padding, None)
        self._own((*self.kernel, c_in, c_out), W, b)

    def _define(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair,
        padding: Padding,
        output_padding: int | Pair | None,
    ) -> None:
        super().__init__()
        require_sizes(self, c_in=c_in, c_out=c_out)
        self.c_in, self.c_out, self.padding = int(c_in), int(c_out), padding
        kind = type(self).__name__
        self.kernel, self.stride = (
            pair(kernel, f"{kind}'s kernel"),
            pair(stride, f"{kind}'s stride"),
        )
        self.output_padding = (
            None if output_padding is None else pair(output_padding, f"{kind}'s output_padding")
        )
        self.geometry: Geometry | None = None  # known when a Network tells the size of the images
        try:
            check_options(self.kernel, self.stride, padding, self.output_padding)
        except OptionError as error:
            raise OptionError(f"{self}: {error}") from None

    def _own(self, shape: Shape, W: Initialiser, b: Initialiser | None) -> None:
        self.bias = b is not None
        self.parameters["W"] = (shape, W)
        if b is not None:
            self.parameters["b"] = ((self.c_out,), b)

    # ---- sizes ---------------------------------------------------------------------------------

    def _geometry_of(self, size: Pair) -> Geometry:
        return conv_geometry(size, self.kernel, self.stride, self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        fits = len(shape) == 3 and shape[-1] == self.c_in
        self.expect(fits, f"(N, H, W, {self.c_in})", shape)
        try:
            self.geometry = self._geometry_of((shape[0], shape[1]))
        except ShapeError as error:
            self.expect(False, str(error), shape)
        return (*self._output_size(), self.c_out)

    def _output_size(self) -> Pair:
        return self._known().output

    def _input_size(self) -> Pair:
        return self._known().input

    def _known(self) -> Geometry:
        if self.geometry is None:
            raise ShapeError(f"{self} does not know the size of its images: put it into a Network")
        return self.geometry

    def _plan(self, cache: Cache) -> Convolution:
        return cache.backend.convolution(self._known(), self.c_in, self.c_out)

    # ---- the three products, in the direction of a convolution -----------------------------------

    def _lift(self, x: Array, cache: Cache, name: str, keeps: bool = False) -> Array:
        memory = cache if keeps else cache.backend.shared
        return self._plan(cache).lift_input(x, memory, name)

    def _lift_back(self, dy: Array, cache: Cache, name: str) -> Array:
        return self._plan(cache).lift_output(dy, cache.backend.shared, name)

    def _weight(self, cache: Cache) -> Array:
        return self._plan(cache).lift_weight(self.W, cache.backend.shared, "W")

    def _apply(self, X: Array, W: Array, cache: Cache, out: Array, b: Array | None = None) -> Array:
        return self._plan(cache).output(X, W, out, b)  # y = x * w + b  [conv.4]

    def _apply_back(self, DY: Array, W: Array, cache: Cache, out: Array) -> Array:
        return self._plan(cache).input(DY, W, out)  # dx: each pixel gets back  [conv.6]

    def _add_weight(self, X: Array, DY: Array, cache: Cache) -> None:
        self._plan(cache).add_weight(X, DY, self.dW)  # dW += what x and dy meet in  [conv.5]

    def _add_bias(self, DY: Array, dy: Array, cache: Cache) -> None:
        self._plan(cache).add_bias(DY, dy, self.db)  # db += sums over n, p and q

    # ---- the four passes -----------------------------------------------------------------------

    def _keeps(self, cache: Cache) -> bool:
        """Whether X is kept for backward, and not x to make it of."""
        return cache.train and self._plan(cache).keeps

    def needs(self, cache: Cache) -> str:
        return "" if self._keeps(cache) else "x"

    def forward(self, x: Array, cache: Cache) -> Array:
        keeps = self._keeps(cache)
        X, W = self._lift(x, cache, "X", keeps), self._weight(cache)
        cache.keep("x", None if keeps else x)
        cache.keep("X", X if keeps else None)
        y = self._images("y", len(x), cache)
        return self._apply(X, W, cache, out=y, b=self.b if self.bias else None)

    def _lifted(self, cache: Cache) -> Array:
        """X of the last forward: kept, or made anew of x."""
        x, X = cache.kept("x"), cache.kept("X")
        return self._lift(x, cache, "X") if X is None else X

    def _images(self, name: str, n: int, cache: Cache) -> Array:
        return cache.images(name, (n, *self._output_size(), self.c_out))

    def _input_images(self, name: str, n: int, cache: Cache) -> Array:
        return cache.images(name, (n, *self._input_size(), self.c_in))

    def backward(
        self, dy: Array, cache: Cache, param_grads: bool = True, input_grad: bool = True
    ) -> Array:
        DY = self._lift_back(dy, cache, "DY")
        if param_grads:
            self._add_weight(self._lifted(cache), DY, cache)
            if self.bias:
                self._add_bias(DY, dy, cache)
        if not input_grad:
            return None
        dx = self._input_images("dx", len(dy), cache)
        return self._apply_back(DY, self._weight(cache), cache, out=dx)

    def jvp(self, t: Array, cache: Cache) -> Array:
        cache.keep("t", t)
        T = self._lift(t, cache, "X")
        ty = self._images("ty", len(t), cache)
        return self._apply(T, self._weight(cache), cache, out=ty)  # ty = t * w  [conv.8]

    def jvp_backward(
        self, dy: Array | None, dty: Array, cache: Cache, param_grads: bool = True
    ) -> tuple[Array | None, Array]:
        dx = None if dy is None else self.backward(dy, cache, param_grads)
        DTY = self._lift_back(dty, cache, "DY")
        if param_grads:  # ty = t * w depends on w as y does, and not on x or b  [conv.9]
            self._add_weight(self._lift(cache.kept("t"), cache, "X"), DTY, cache)
        dt = self._input_images("dt", len(dty), cache)
        return dx, self._apply_back(DTY, self._weight(cache), cache, out=dt)

    def __repr__(self) -> str:
        words = [f"{self.c_in} -> {self.c_out}", f"{self.kernel[0]}x{self.kernel[1]}"]
        if self.stride != (1, 1):
            words.append(f"stride {self.stride[0]}x{self.stride[1]}")
        if self.padding != "SAME":
            words.append(f"padding {self.padding}")
        return f"{type(self).__name__}({', '.join(words)})"


class ConvTranspose2D(Conv2D):
    """The adjoint of a convolution: x (N, h, w, c_in), y (N, H, W, c_out), b (c_out,).

    W is (kh, kw, c_out, c_in), the kernel of the Conv2D from y's size to x's whose adjoint this
    is; the forward of each is the backward of the other. Sizes: SAME: input·stride; VALID:
    (input - 1)·stride + max(kernel, stride); explicit padding: (input - 1)·stride + kernel -
    padding on both sides + `output_padding`, which must be less than the stride. Where the stride
    does not divide the kernel, pixels are sums of unlike numbers of terms: [convt.6].
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: Padding = "SAME",
        output_padding: int | Pair | None = None,
        W: Initialiser = glorot_uniform,
        b: Initialiser | None = zeros,
    ) -> None:
        """`W` and `b` are initialisers; `b=None` leaves the bias out."""
        self._define(c_in, c_out, kernel, stride, padding, output_padding)
        self._own((*self.kernel, c_out, c_in), W, b)

    # The same verbs with input and output exchanged  [convt.1]

    def _geometry_of(self, size: Pair) -> Geometry:
        return transposed_geometry(
            size, self.kernel, self.stride, self.padding, self.output_padding
        )

    def _output_size(self) -> Pair:
        return self._known().input

    def _input_size(self) -> Pair:
        return self._known().output

    def _plan(self, cache: Cache) -> Convolution:
        return cache.backend.convolution(self._known(), self.c_out, self.c_in)

    def _lift(self, x: Array, cache: Cache, name: str, keeps: bool = False) -> Array:
        memory = cache if keeps else cache.backend.shared
        return self._plan(cache).lift_output(x, memory, name)

    def _lift_back(self, dy: Array, cache: Cache, name: str) -> Array:
        return self._plan(cache).lift_input(dy, cache.backend.shared, name)

    def _apply(self, X: Array, W: Array, cache: Cache, out: Array, b: Array | None = None) -> Array:
        y = self._plan(cache).input(X, W, out)  # [convt.2]
        if b is not None:
            y += b
        return y

    def _apply_back(self, DY: Array, W: Array, cache: Cache, out: Array) -> Array:
        return self._plan(cache).output(DY, W, out)  # dx is a convolution of dy  [convt.4]

    def _add_weight(self, X: Array, DY: Array, cache: Cache) -> None:
        self._plan(cache).add_weight(DY, X, self.dW)  # [convt.5]

    def _add_bias(self, DY: Array, dy: Array, cache: Cache) -> None:
        cache.backend.add_column_sums(cache.backend.rows(dy), out=self.db)
