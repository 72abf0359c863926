"""A convolution and its two other derivatives, as matrix products. Derivation: docs/convolution.md.

    T(x, w, y) = sum over n, p, q, a, b, c, o of
                 x[n, p·sh + a - top, q·sw + b - left, c] · w[a, b, c, o] · y[n, p, q, o]

is linear in each of its three arguments, and its three partial derivatives are all that a network
ever needs: by y, the convolution; by x, its adjoint, which is the transposed convolution; by w, the
gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

from tinygan.backend.geometry import Geometry, Pair

if TYPE_CHECKING:
    from tinygan.backend.interface import Backend

Array = Any

# Up to this many channels a patch is laid out channel by channel: copies then run along the batch.
FEW = 15


class Buffers(Protocol):
    """Where a plan puts what it lifts: the memory that all layers share, or a call site's."""

    def images(self, name: str, shape: tuple[int, ...]) -> Array: ...

    def new(self, name: str, shape: tuple[int, ...]) -> Array: ...


class Convolution(Protocol):
    """The verbs. x (N, H, W, c_in), w (kh, kw, c_in, c_out), y (N, P, Q, c_out): [conv.1].

    A lifted array is whatever form the algorithm computes in. It may be the array itself, and is
    good as long as that and its buffer are.
    """

    keeps: bool  # whether a lifted x is worth its memory from forward to backward

    def lift_input(self, x: Array, memory: Buffers, name: str) -> Array: ...

    def lift_weight(self, w: Array, memory: Buffers, name: str) -> Array: ...

    def lift_output(self, y: Array, memory: Buffers, name: str) -> Array: ...

    def output(self, X: Array, W: Array, out: Array, b: Array | None = None) -> Array:
        """out (N, P, Q, c_out) = dT/dy + b, the convolution of x with w; b (c_out,), if any"""

    def input(self, Y: Array, W: Array, out: Array) -> Array:
        """out (N, H, W, c_in) = dT/dx, the adjoint: the transposed convolution of y with w"""

    def add_weight(self, X: Array, Y: Array, out: Array) -> Array:
        """out (kh, kw, c_in, c_out) += dT/dw"""

    def add_bias(self, Y: Array, y: Array, out: Array) -> Array:
        """out (c_out,) += the sums over n, p and q of y, whose lifted form is Y"""


class DirectConvolution:
    """im2col: the pixels under the kernel, copied side by side, times the kernel as a matrix.

    The patches are (rows, kh·kw·c_in), a row for each (n, p, q). They lie in scratch memory, which
    all layers share, and are made again for the weight's gradient: copying costs less than a
    product, and keeping them for each of D's call sites would cost most of the memory of a step.
    `out` lies in memory as `Backend.empty_images` lays it.
    """

    keeps = False

    def __init__(self, backend: Backend, geometry: Geometry, c_in: int, c_out: int) -> None:
        self.backend, self.geometry, self.c_in, self.c_out = backend, geometry, c_in, c_out
        (H, W), (kh, kw), (sh, sw), (top, left), (P, Q) = geometry
        self.patch = kh * kw * c_in
        self.by_channel = c_in <= FEW
        self.seen = (P - 1) * sh + kh, (Q - 1) * sw + kw  # all that the kernel ever sees
        h, w = min(H, self.seen[0] - top), min(W, self.seen[1] - left)  # of it, pixels of the image
        self.pixels = slice(None), slice(h), slice(w)
        self.inside = slice(None), slice(top, top + h), slice(left, left + w)

    # ---- lifts ---------------------------------------------------------------------------------

    def lift_input(self, x: Array, memory: Buffers, name: str) -> Array:
        return x

    def lift_weight(self, w: Array, memory: Buffers, name: str) -> Array:
        return w

    def lift_output(self, y: Array, memory: Buffers, name: str) -> Array:
        """y itself, or a copy if it does not lie in memory as images do."""
        if y.transpose(*self.backend.image_axes, 3).flags.c_contiguous:
            return y
        lifted = memory.images(name, y.shape)
        lifted[...] = y
        return lifted

    # ---- the three derivatives -----------------------------------------------------------------

    def output(self, X: Array, W: Array, out: Array, b: Array | None = None) -> Array:
        patches, w, rows = self._rows(self._patches(X)), self._matrix(W), self._rows(out)
        if b is None:
            self.backend.matmul(patches, w, out=rows)
        else:
            self.backend.affine(patches, w, b, out=rows)
        return out  # [conv.4]

    def input(self, Y: Array, W: Array, out: Array) -> Array:
        patches = self._scratch("patches", len(Y), self.geometry.output, self.patch)
        rows, w = self._rows(patches), self._matrix(W)
        if self.by_channel:
            self.backend.matmul(w, self._rows(Y).T, out=rows.T)
        else:
            self.backend.matmul(self._rows(Y), w.T, out=rows)
        return self._put_back(patches, out)  # [conv.6]

    def add_weight(self, X: Array, Y: Array, out: Array) -> Array:
        patches = self._rows(self._patches(X))
        self.backend.matmul_add(patches.T, self._rows(Y), out=self._matrix(out))  # [conv.5]
        return out

    def add_bias(self, Y: Array, y: Array, out: Array) -> Array:
        return self.backend.add_column_sums(self.backend.rows(y), out=out)

    # ---- patches -------------------------------------------------------------------------------

    def _patches(self, x: Array) -> Array:
        """patches[n, p, q, (a, b, c)] = x[n, p·sh + a - top, q·sw + b - left, c]: im2col."""
        patches = self._scratch("patches", len(x), self.geometry.output, self.patch)
        seen = self._scratch("seen", len(x), self.seen, self.c_in)
        _, rows, columns = self.inside
        seen[:, : rows.start] = 0.0
        seen[:, rows.stop :] = 0.0
        seen[:, rows, : columns.start] = 0.0
        seen[:, rows, columns.stop :] = 0.0
        seen[self.inside] = x[self.pixels]
        for part, place in self._offsets():
            patches[part] = seen[place]
        return patches

    def _put_back(self, patches: Array, out: Array) -> Array:
        """The adjoint of `_patches`, col2im: what was read from a pixel is added to it."""
        seen = self._scratch("seen", len(out), self.seen, self.c_in)
        seen.fill(0.0)
        for part, place in self._offsets():
            pixels = seen[place]
            pixels += patches[part]
        _, rows, columns = self.pixels
        out[:, rows.stop :] = 0.0  # the stride's remainder: pixels that no kernel reaches
        out[:, rows, columns.stop :] = 0.0
        out[self.pixels] = seen[self.inside]
        return out

    def _offsets(self) -> Iterator[tuple[Any, Any]]:
        """(the part of a patch, the pixels that it takes) for each kernel offset (a, b)."""
        _, (kh, kw), (sh, sw), _, (P, Q) = self.geometry
        for i, (a, b) in enumerate(product(range(kh), range(kw))):
            part = slice(i * self.c_in, (i + 1) * self.c_in)
            place = slice(a, a + (P - 1) * sh + 1, sh), slice(b, b + (Q - 1) * sw + 1, sw)
            yield (..., part), (slice(None), *place)

    # ---- memory --------------------------------------------------------------------------------

    def _matrix(self, w: Array) -> Array:
        """(kh, kw, c_in, c_out) as (patch, c_out)"""
        return w.reshape(self.patch, self.c_out)

    def _rows(self, x: Array) -> Array:
        """(N, h, w, c) as a matrix, the rows in the memory order of images."""
        return x.transpose(*self.backend.image_axes, 3).reshape(-1, x.shape[-1])

    def _scratch(self, name: str, n: int, size: Pair, channels: int) -> Array:
        """Shared memory (n, *size, channels), for few channels laid out channel by channel."""
        shape, axes = (n, *size), self.backend.image_axes
        in_memory, back = tuple(shape[a] for a in axes), [axes.index(axis) for axis in range(3)]
        if self.by_channel:
            memory = self.backend.workspace(name, (channels, *in_memory))
            return memory.transpose(*(1 + axis for axis in back), 0)
        return self.backend.workspace(name, (*in_memory, channels)).transpose(*back, 3)
