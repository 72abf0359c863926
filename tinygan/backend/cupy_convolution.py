"""CuPy's convolutions: one launch of an own kernel beside each product. See docs/convolution.md.

The plain form copies once for each place of the kernel, in 25 launches for 5×5. `im2col` and
`col2im` in `convolution.cu` do the same in one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tinygan.backend.convolution import Buffers
from tinygan.backend.geometry import Geometry

if TYPE_CHECKING:
    from tinygan.backend.interface import Backend

Array = Any
Launch = Callable[..., Any]  # (name of a kernel, *arguments, n=threads)

LIMIT = 1 << 28  # bytes of patches that are made at once: 256 MiB
COUNT = 1 << 31  # the kernels' indices stay below it


class LoweredConvolution:
    """im2col, a product, col2im, for images (N, H, W, C) in C order.

    The patches lie in one memory that all layers and call sites share, and are made again for the
    weight's gradient. A minibatch whose patches would take more than LIMIT bytes goes in parts,
    a sample at least.
    """

    keeps = False

    def __init__(
        self, backend: Backend, geometry: Geometry, c_in: int, c_out: int, launch: Launch
    ) -> None:
        self.backend, self.c_out, self.launch = backend, c_out, launch
        self.sizes = *geometry.flat(), c_in
        (kh, kw), (P, Q) = geometry.kernel, geometry.output
        self.windows, self.strip, self.patch = P * Q, kw * c_in, kh * kw * c_in
        self.as_they_are = _patches_are_images(geometry)
        bytes_each = largest(geometry, c_in) * backend.dtype.itemsize
        self.part = max(1, LIMIT // bytes_each)

    # ---- lifts: arrays as the kernels walk over them ---------------------------------------------

    def lift_input(self, x: Array, memory: Buffers, name: str) -> Array:
        backend = self.backend
        ours = isinstance(x, backend.xp.ndarray) and x.dtype == backend.dtype
        if ours and x.flags.c_contiguous:
            return x
        lifted = memory.images(name, x.shape)
        lifted[...] = x
        return lifted

    def lift_output(self, y: Array, memory: Buffers, name: str) -> Array:
        return self.lift_input(y, memory, name)

    def lift_weight(self, w: Array, memory: Buffers, name: str) -> Array:
        return w

    # ---- the three derivatives -----------------------------------------------------------------

    def output(self, X: Array, W: Array, out: Array, b: Array | None = None) -> Array:
        w = W.reshape(self.patch, self.c_out)
        for part in self._parts(len(X)):
            self.backend.matmul(self._im2col(X[part]), w, out=self._rows(out[part]))
        if b is not None:
            out += b
        return out  # [conv.4]

    def input(self, Y: Array, W: Array, out: Array) -> Array:
        w = W.reshape(self.patch, self.c_out)
        for part in self._parts(len(Y)):
            patches = self._patches_of(out[part])
            self.backend.matmul(self._rows(Y[part]), w.T, out=patches)
            self._col2im(patches, out[part])
        return out  # [conv.6]

    def add_weight(self, X: Array, Y: Array, out: Array) -> Array:
        dw = out.reshape(self.patch, self.c_out)
        for part in self._parts(len(X)):
            self.backend.matmul_add(self._im2col(X[part]).T, self._rows(Y[part]), out=dw)
        return out  # [conv.5]

    def add_bias(self, Y: Array, y: Array, out: Array) -> Array:
        return self.backend.add_column_sums(self.backend.rows(y), out=out)

    # ---- patches -------------------------------------------------------------------------------

    def _im2col(self, x: Array) -> Array:
        """patches[(n, p, q), (a, b, c)] = x[n, p·sh + a - top, q·sw + b - left, c], 0 outside x."""
        patches = self._patches_of(x)
        if not self.as_they_are:
            self.launch("im2col", x, patches, *self.sizes, n=len(patches) * self.strip)
        return patches

    def _col2im(self, patches: Array, out: Array) -> None:
        """out[n, h, v, c] = the sum of patches[(n, p, q), (a, b, c)] over the taps at (h, v).

        Along each axis a = (h + top) mod s, and on in steps of s; p = (h + top) // s, and back in
        steps of 1: [conv.11].
        """
        if not self.as_they_are:
            self.launch("col2im", patches, out, *self.sizes, n=out.size)

    def _patches_of(self, images: Array) -> Array:
        """Where the patches of these images lie: in shared memory, or as the images themselves."""
        if self.as_they_are:
            return images.reshape(-1, self.patch)
        return self.backend.workspace("patches", (len(images) * self.windows, self.patch))

    def _rows(self, y: Array) -> Array:
        return y.reshape(-1, self.c_out)

    def _parts(self, n: int) -> Iterator[slice]:
        """The samples, as many at a time as LIMIT allows."""
        for start in range(0, n, self.part):
            yield slice(start, start + self.part)


def largest(geometry: Geometry, c_in: int) -> int:
    """How many numbers the larger of a sample and its patches has."""
    (H, W), (kh, kw), _, _, (P, Q) = geometry
    return max(H * W, P * Q * kh * kw) * c_in


def _patches_are_images(geometry: Geometry) -> bool:
    """Whether a pixel, or a whole image, is a patch: both then lie in memory alike."""
    input, kernel, stride, before, output = geometry
    pixels = kernel == stride == (1, 1) and output == input
    return before == (0, 0) and (pixels or (kernel == input and output == (1, 1)))
