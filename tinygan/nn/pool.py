"""Max pooling, and nearest-neighbour up-sampling. Derivation: docs/pooling.md."""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.backend.geometry import Padding, Pair, Part, check_options, conv_geometry, pair
from tinygan.errors import OptionError, ShapeError
from tinygan.nn.cache import Cache
from tinygan.nn.layer import PiecewiseLinear, Shape

EVERY = slice(None)


class MaxPool2D(PiecewiseLinear):
    """y[n, p, q, c] = the largest entry of x[n, :, :, c] in window (p, q).

    x (N, H, W, C), y (N, P, Q, C). `size` and `stride` (default: the size) are an int or a pair;
    `padding` is as for Conv2D and counts as -infinity. Of equal entries the first of the window,
    row by row, takes the gradient. Raises OptionError for options that make no sense.
    """

    def __init__(
        self, size: int | Pair = 2, stride: int | Pair | None = None, padding: Padding = "VALID"
    ) -> None:
        super().__init__()
        self.size, self.padding = pair(size, "MaxPool2D's size"), padding
        self.stride = self.size if stride is None else pair(stride, "MaxPool2D's stride")
        try:
            check_options(self.size, self.stride, padding)
        except OptionError as error:
            raise OptionError(f"{self}: {error}") from None

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(len(shape) == 3, "(N, H, W, C)", shape)
        h, w, c = shape
        try:
            self.geometry = conv_geometry((h, w), self.size, self.stride, self.padding)
        except ShapeError as error:
            self.expect(False, str(error), shape)
        return (*self.geometry.output, c)

    def needs(self, cache: Cache) -> str:
        return ""

    def forward(self, x: Array, cache: Cache) -> Array:
        y = cache.images("y", (len(x), *self.geometry.output, x.shape[3]))
        winner = cache.like("winner", y)
        cache.backend.max_pool(x, self.geometry, y, winner)  # [pool.1]
        cache.keep("winner", winner)
        return y

    def transposed(self, dy: Array, cache: Cache, name: str) -> Array:
        """dy, added to the pixel that won each window; where no window reaches, zero: [pool.2]."""
        dx = cache.images(name, (len(dy), *self.geometry.input, dy.shape[3]))
        return cache.backend.max_pool_backward(dy, cache.kept("winner"), self.geometry, out=dx)

    def jvp(self, t: Array, cache: Cache) -> Array:
        xp, winner = cache.backend.xp, cache.kept("winner")
        ty = cache.like("ty", winner)
        share = cache.backend.scratch_images("share", winner.shape)
        ty.fill(0)
        for place, at, pixels in self.geometry.places():
            xp.equal(winner[at], place, out=share[at])
            xp.multiply(share[at], t[pixels], out=share[at])
            xp.add(ty[at], share[at], out=ty[at])  # [pool.3]
        return ty

    def __repr__(self) -> str:
        (h, w), (sh, sw) = self.size, self.stride
        return f"MaxPool2D({h}x{w}, stride {sh}x{sw}, {self.padding})"


class UpSample(PiecewiseLinear):
    """Each pixel becomes a block: y[n, i, j, c] = x[n, i // f, j // f, c], x (N, H, W, C)."""

    def __init__(self, factor: int | Pair = 2) -> None:
        super().__init__()
        self.factor = pair(factor, "UpSample's factor")
        if min(self.factor) < 1:
            raise OptionError(f"{self}: the factor must be at least 1")
        # Place by place: those pixels of all blocks.
        self.places: list[Part] = [
            (EVERY, slice(a, None, self.factor[0]), slice(b, None, self.factor[1]))
            for a in range(self.factor[0])
            for b in range(self.factor[1])
        ]

    def output_shape(self, shape: Shape) -> Shape:
        self.expect(len(shape) == 3, "(N, H, W, C)", shape)
        return (shape[0] * self.factor[0], shape[1] * self.factor[1], shape[2])

    def _repeat(self, x: Array, cache: Cache, name: str) -> Array:
        y = cache.images(name, (len(x), *self.output_shape(x.shape[1:])))
        for place in self.places:
            y[place] = x  # [up.1]
        return y

    def transposed(self, dy: Array, cache: Cache, name: str) -> Array:
        xp, first = cache.backend.xp, dy[self.places[0]]
        dx = cache.images(name, first.shape)
        dx[...] = first
        for place in self.places[1:]:
            xp.add(dx, dy[place], out=dx)  # [up.2]
        return dx

    def needs(self, cache: Cache) -> str:
        return ""

    def forward(self, x: Array, cache: Cache) -> Array:
        return self._repeat(x, cache, "y")

    def jvp(self, t: Array, cache: Cache) -> Array:
        return self._repeat(t, cache, "ty")

    def __repr__(self) -> str:
        return f"UpSample({self.factor[0]}x{self.factor[1]})"
