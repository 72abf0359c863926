"""A convolution by rows of the image: NumPy's form for many channels. See docs/convolution.md.

In the memory order (H, W, N, C) a range of image rows is one matrix. So the patches need copies
along x alone, kw of them; along y the kernel's rows are kh products on shifted views of the same
memory. That is stride/kh of im2col's copying, and products with rows of padding are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygan.backend.convolution import DirectConvolution
from tinygan.backend.geometry import Geometry

if TYPE_CHECKING:
    from tinygan.backend.interface import Backend

Array = Any


class RowConvolution(DirectConvolution):
    """The same three derivatives, for images that lie in the order (H, W, N, C)."""

    def __init__(self, backend: Backend, geometry: Geometry, c_in: int, c_out: int) -> None:
        super().__init__(backend, geometry, c_in, c_out)
        _, (kh, kw), (sh, _), _, (P, Q) = geometry
        self.strip = kw * c_in  # the numbers that one kernel row sees
        # Image row h becomes row (h + top) // sh of the phase (h + top) % sh. Output row p meets
        # kernel row a in row p + a // sh of the phase a % sh: all p one after another  [conv.10]
        self.lowered = sh, P + (kh - 1) // sh, Q
        self.phases = [
            (phase, rows, pixels)
            for phase in range(min(sh, kh))
            for rows, pixels in self._of(phase)
        ]
        self.columns = {b: (qs, pixels) for b, qs, pixels in geometry.meetings(1)}
        # The kernel row that meets most output rows comes first: its product fills the output.
        self.rows = [(a, ps) for a, ps, _ in geometry.meetings(0)]
        self.rows.sort(key=lambda row: row[1].start - row[1].stop)

    def _of(self, phase: int) -> list[tuple[slice, slice]]:
        """[(lowered rows, image rows)] of a phase, or [] if it has none."""
        (H, _), _, (sh, _), (top, _), _ = self.geometry
        h = (phase - top) % sh
        row = (h + top) // sh
        count = min(-((h - H) // sh), self.lowered[1] - row)
        if count < 1:
            return []
        return [(slice(row, row + count), slice(h, h + (count - 1) * sh + 1, sh))]

    # ---- the three derivatives -----------------------------------------------------------------

    def output(self, X: Array, W: Array, out: Array, b: Array | None = None) -> Array:
        strips, y = self._lower(X), out.transpose(1, 2, 0, 3)
        first = self.rows[0][1]
        fills = b is None and first.stop - first.start == len(y)
        if not fills:
            out[...] = 0.0 if b is None else b
        for i, (a, ps) in enumerate(self.rows):
            product = self.backend.matmul if fills and i == 0 else self.backend.matmul_add
            w = W[a].reshape(self.strip, self.c_out)
            product(self._met(strips, a, ps), w, out=y[ps].reshape(-1, self.c_out))
        return out  # [conv.4]

    def input(self, Y: Array, W: Array, out: Array) -> Array:
        strips, dy = self._strips(len(Y)), Y.transpose(1, 2, 0, 3)
        strips.fill(0.0)
        for a, ps in self.rows:
            w = W[a].reshape(self.strip, self.c_out)
            part = self._met(strips, a, ps)
            self.backend.matmul_add(dy[ps].reshape(-1, self.c_out), w.T, out=part)
        return self._raise(strips, out)  # [conv.6]

    def add_weight(self, X: Array, Y: Array, out: Array) -> Array:
        strips, dy = self._lower(X), Y.transpose(1, 2, 0, 3)
        for a, ps in self.rows:
            dw, part = out[a].reshape(self.strip, self.c_out), self._met(strips, a, ps)
            self.backend.matmul_add(part.T, dy[ps].reshape(-1, self.c_out), out=dw)  # [conv.5]
        return out

    # ---- strips --------------------------------------------------------------------------------

    def _strips(self, n: int) -> Array:
        """Shared memory (phase, row, q, n, (b, c))."""
        return self.backend.workspace("patches", (*self.lowered, n, self.strip))

    def _met(self, strips: Array, a: int, ps: slice) -> Array:
        """What kernel row a meets at the output rows `ps`, as a matrix: a view."""
        down, phase = divmod(a, self.geometry.stride[0])
        return strips[phase, ps.start + down : ps.stop + down].reshape(-1, self.strip)

    def _part(self, b: int) -> slice:
        return slice(b * self.c_in, (b + 1) * self.c_in)

    def _lower(self, x: Array) -> Array:
        """The image's rows by phase, and in each row the kw·c_in numbers under the kernel."""
        strips, x = self._strips(len(x)), x.transpose(1, 2, 0, 3)
        for phase, rows, pixels in self.phases:
            for b in range(self.geometry.kernel[1]):
                qs, columns = self.columns.get(b, (slice(0, 0), slice(0, 0)))
                part = strips[phase, rows, ..., self._part(b)]
                part[:, : qs.start] = 0.0
                part[:, qs] = x[pixels, columns]
                part[:, qs.stop :] = 0.0
        return strips

    def _raise(self, strips: Array, out: Array) -> Array:
        """The adjoint of `_lower`: what was read from a pixel is added to it."""
        out.fill(0.0)
        x = out.transpose(1, 2, 0, 3)
        for phase, rows, pixels in self.phases:
            for b, (qs, columns) in self.columns.items():
                into = x[pixels, columns]
                into += strips[phase, rows, qs, :, self._part(b)]
        return out
