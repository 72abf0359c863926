"""Convolution by a real Fourier transform: y = A[(G w) (B x)] with three constant matrices.

The product of two transforms, point by point, is a convolution on a ring of pixels. On the smallest
ring whose wrap-around misses every output this takes a fraction of the multiplications, and all of
it is matrix products. Derivation: docs/spectral-convolution.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinygan.backend.convolution import Buffers
from tinygan.backend.geometry import Geometry
from tinygan.backend.interface import Array
from tinygan.backend.team import the_team

if TYPE_CHECKING:
    from tinygan.backend.numpy_backend import NumpyBackend

Pair = tuple[int, int]
Slices = tuple[slice, slice]  # of both axes of an image

WHOLE: list[Slices] = [(slice(None), slice(None))]


# ---- rings: how many multiplications -----------------------------------------------------------


class Ring(NamedTuple):
    """One axis, cut into blocks of `stride` pixels, on a ring of `length` places, one a block."""

    length: int
    blocks: int
    used: range  # the blocks that an output sees


def ring(size: int, kernel: int, stride: int, before: int, output: int) -> Ring:
    """The shortest ring on which no output meets a pixel that is not its own: [spectral.3]."""
    low, high = -before // stride, (kernel - 1 - before) // stride  # taps, in blocks
    last = output - 1 + high
    blocks = -(-size // stride)
    used = range(max(0, low), min(blocks, last + 1))
    length = max(used[-1] - low, last - used[0]) + 1 if used else 1
    return Ring(length, blocks, used)


def rings(geometry: Geometry) -> tuple[Ring, Ring]:
    """The rings of both axes."""
    rows, columns = (ring(*axis) for axis in zip(*geometry, strict=True))
    return rows, columns


def points(rows: int, columns: int) -> int:
    """R, the multiplications on a torus of rows x columns places: [spectral.4].

    A frequency that is its own conjugate costs one, every pair of conjugates three.
    """
    own = (2 - rows % 2) * (2 - columns % 2)
    return own + 3 * (rows * columns - own) // 2


# ---- the constant matrices ---------------------------------------------------------------------


class Waves:
    """Cosines and sines of the torus's frequencies, one of each pair of conjugates."""

    def __init__(self, lengths: Pair) -> None:
        self.lengths = lengths
        every = [(u, v) for u in range(lengths[0]) for v in range(lengths[1])]
        other = {(u, v): (-u % lengths[0], -v % lengths[1]) for u, v in every}
        half = [f for f in every if f <= other[f]]
        self.own = np.array([f == other[f] for f in half])
        self.u, self.v = np.array(half).T

    def at(self, rows: Iterable[int], columns: Iterable[int]) -> tuple[Array, Array]:
        """cos and sin of 2 pi (u i / L + v j / L'), (frequencies, places): [spectral.1]."""
        # Whole turns are dropped in integers, so that a far place is as exact as a near one.
        x = np.multiply.outer(self.u, list(rows)) % self.lengths[0] / self.lengths[0]
        y = np.multiply.outer(self.v, list(columns)) % self.lengths[1] / self.lengths[1]
        angle = 2.0 * np.pi * (x[:, :, None] + y[:, None, :]).reshape(len(x), -1)
        return np.cos(angle), np.sin(angle)

    def stack(self, real: Array, first: Array, second: Array, third: Array) -> Array:
        """(R, places): a row for each frequency that is its own conjugate, three for a pair."""
        pair = ~self.own
        return np.concatenate([real[self.own], first[pair], second[pair], third[pair]])


class Phase(NamedTuple):
    """The pixels of one remainder modulo the stride, the taps that meet them, and their G."""

    pixels: Slices
    taps: Slices
    G: Array  # (R, taps of this phase)


class Transform(NamedTuple):
    """The constant matrices of one geometry, float64: [spectral.5].

    sum_r A[p, r] G[r, a] B[r, i] = 1 where output p meets block i under tap a, else 0.
    """

    A: Array  # (outputs, R)
    B: Array  # (R, blocks)
    phases: list[Phase]


def make_transform(geometry: Geometry, torus: tuple[Ring, Ring]) -> Transform:
    """A and B, and a G for every phase, by Gauss's three multiplications: [spectral.4]."""
    rows, columns = torus
    waves = Waves((rows.length, columns.length))
    # With X = a - i b a pixel's transform and V = c + i d the conjugate of a tap's, X V is
    # (m1 + m3) + i (m2 + m3) for m1 = (c - d) a, m2 = -(c + d) b, m3 = d (a + b).
    a, b = waves.at(range(rows.blocks), range(columns.blocks))
    seen = np.zeros((rows.blocks, columns.blocks))
    seen[np.ix_(rows.used, columns.used)] = 1.0
    B = waves.stack(a, a, b, a + b) * seen.ravel()
    cos, sin = waves.at(range(geometry.output[0]), range(geometry.output[1]))
    A = waves.stack(cos, 2.0 * cos, -2.0 * sin, 2.0 * (cos - sin)).T
    phases = []
    for (r, a_taps, i), (q, b_taps, j) in (
        (row, column) for row in _remainders(geometry, 0) for column in _remainders(geometry, 1)
    ):
        c, d = waves.at(i, j)
        pixels = slice(r, None, geometry.stride[0]), slice(q, None, geometry.stride[1])
        phases.append(Phase(pixels, (a_taps, b_taps), waves.stack(c, c - d, -c - d, d)))
    return Transform(A / math.prod(waves.lengths), B, phases)


def _remainders(geometry: Geometry, axis: int) -> list[tuple[int, slice, list[int]]]:
    """(remainder, its taps, where they stand on the ring) along one axis: [spectral.2].

    A remainder without taps is left out: under a stride beyond the kernel nobody sees its pixels.
    """
    kernel, stride = geometry.kernel[axis], geometry.stride[axis]
    before = geometry.before[axis]
    found = []
    for remainder in range(stride):
        taps = range((remainder + before) % stride, kernel, stride)
        if taps:
            places = [(tap - before) // stride for tap in taps]
            found.append((remainder, slice(taps.start, kernel, stride), places))
    return found


# ---- which plan --------------------------------------------------------------------------------

# Measured on two cores: floating-point operations a nanosecond in a large matrix product and in one
# of a point's, and nanoseconds to write a number of a patch and of a transform.
LARGE, SMALL, PATCH, LIFTED = 190.0, 115.0, 0.6, 0.4
BATCH = 64  # over which a kernel's transform is shared


def spectral_is_faster(geometry: Geometry, c_in: int, c_out: int) -> bool:
    """Whether transforms are estimated to cost less time than patches: [spectral.7]."""
    outputs, taps = math.prod(geometry.output), math.prod(geometry.kernel)
    direct = 2.0 * outputs * taps * c_in * c_out / LARGE + PATCH * outputs * taps * c_in
    rows, columns = rings(geometry)
    R, K = points(rows.length, columns.length), math.prod(geometry.stride) * c_in
    lifts = rows.blocks * columns.blocks * K + outputs * c_out + taps * c_in * c_out / BATCH
    numbers = R * (K + c_out + K * c_out / BATCH)
    return 2.0 * R * (K * c_out / SMALL + lifts / LARGE) + LIFTED * numbers < direct


GRADIENT = 1 << 21  # numbers of a transformed gradient that lie in memory at a time


# ---- the plan ----------------------------------------------------------------------------------


class SpectralConvolution:
    """y = A[(G w)(B x)], dx = Bᵀ[(Aᵀ dy)(G w)ᵀ], dw = Gᵀ[(B x)ᵀ(Aᵀ dy)]: the verbs.

    Lifted arrays: x (R, N, K), w (R, K, c_out), y (R, N, c_out), where K = phases·c_in. At each of
    the R points stands one matrix product. Arrays of images lie in memory as (H, W, N, C), so that
    a transform is one product too.
    """

    keeps = True

    def __init__(self, backend: NumpyBackend, geometry: Geometry, c_in: int, c_out: int) -> None:
        self.backend, self.geometry, self.c_in, self.c_out = backend, geometry, c_in, c_out
        self.rings = rings(geometry)
        A, B, phases = make_transform(geometry, self.rings)
        self.A, self.B = (np.ascontiguousarray(m, backend.dtype) for m in (A, B))
        self.phases = [f._replace(G=np.ascontiguousarray(f.G, backend.dtype)) for f in phases]
        self.R, self.K = len(B), len(phases) * c_in
        self.torus = self.rings[0].length * self.rings[1].length  # its places
        pairs = self.R - self.torus  # of conjugates
        self.first, self.second, self.third = (self.R - i * pairs for i in (3, 2, 1))
        self.blocks = self.rings[0].blocks, self.rings[1].blocks
        self.pixels = [phase.pixels for phase in phases]
        # Each thread makes the weights' gradient for so many channels at a time.
        threads = the_team().size
        self.piece = max(1, min(-(-c_in // threads), GRADIENT // (self.R * c_out * threads)))

    # ---- lifts ---------------------------------------------------------------------------------

    def lift_input(self, x: Array, memory: Buffers, name: str) -> Array:
        """B x (R, N, K)"""
        X = memory.new(name, (self.R, len(x), self.K))
        return self._lift(self.B, x, self.pixels, self.blocks, X)

    def lift_weight(self, w: Array, memory: Buffers, name: str) -> Array:
        """G w (R, K, c_out), phase after phase along K."""
        slot = self.backend.lifted.slot(self, w)
        W = memory.new(f"{name} {slot.number}", (self.R, self.K, self.c_out))
        if slot.holds(w, W):
            return W
        slot.clear(slot.place)
        copy = slot.copy_of(w, self.backend)
        parts = W.reshape(self.R, len(self.phases), self.c_in, self.c_out)

        def channels(c: slice, who: int) -> None:
            copy[:, :, c] = w[:, :, c]
            for f, phase in enumerate(self.phases):
                taps = w[phase.taps][:, :, c].reshape(phase.G.shape[1], -1)
                self.backend.matmul(phase.G, taps, out=_matrix(parts[:, f, c]))

        the_team().share_range(self.c_in, channels)
        slot.remember(W)
        return W

    def lift_output(self, y: Array, memory: Buffers, name: str) -> Array:
        """Aᵀ y (R, N, c_out)"""
        Y = memory.new(name, (self.R, len(y), self.c_out))
        return self._lift(self.A.T, y, WHOLE, self.geometry.output, Y)

    # ---- the three derivatives of T ------------------------------------------------------------

    def output(self, X: Array, W: Array, out: Array, b: Array | None = None) -> Array:
        """out (N, P, Q, c_out) = A[(G w)(B x)] + b: [spectral.5]."""
        Y = self._scratch("points", (self.R, len(out), self.c_out))
        self.backend.matmuls(X, W, out=Y)
        if b is not None:
            Y[0] += self.torus * b  # [spectral.8]
        return self._drop(self.A, Y, WHOLE, self.geometry.output, out)

    def input(self, Y: Array, W: Array, out: Array) -> Array:
        """out (N, H, W, c_in) = Bᵀ[(Aᵀ y)(G w)ᵀ]: [spectral.6]."""
        X = self._scratch("points", (self.R, len(out), self.K))
        self.backend.matmuls(Y, W.transpose(0, 2, 1), out=X)
        if len(self.phases) < math.prod(self.geometry.stride):
            out.fill(0)  # pixels that no tap meets
        return self._drop(self.B.T, X, self.pixels, self.blocks, out)

    def add_weight(self, X: Array, Y: Array, out: Array) -> Array:
        """out (kh, kw, c_in, c_out) += Gᵀ[(B x)ᵀ(Aᵀ dy)]: [spectral.6]."""
        parts = X.reshape(self.R, Y.shape[1], len(self.phases), self.c_in)
        points = self._rooms("points", self.R * self.piece * self.c_out)
        most = max(phase.G.shape[1] for phase in self.phases)
        blocks = self._rooms("blocks", most * self.piece * self.c_out)

        def channels(c: slice, who: int) -> None:
            W = _room(points[who], (self.R, c.stop - c.start, self.c_out))
            for f, phase in enumerate(self.phases):
                self.backend.matmuls(parts[:, :, f, c].transpose(0, 2, 1), Y, out=W)
                into = out[phase.taps][:, :, c]
                taps = _room(blocks[who], into.shape)
                self.backend.matmul(phase.G.T, _matrix(W), out=_matrix(taps, 2))
                into += taps

        the_team().share_range(self.c_in, channels, self.piece)
        return out

    def add_bias(self, Y: Array, y: Array, out: Array) -> Array:
        """out (c_out,) += L L' times the sums over n of (Aᵀ y)[0]: [spectral.8]."""
        out += self.torus * self.backend.column_sums(Y[0], out=np.empty_like(out))
        return out

    # ---- places: images as matrices ------------------------------------------------------------

    def _lift(self, matrix: Array, x: Array, pixels: list[Slices], size: Pair, X: Array) -> Array:
        """X (R, N, K) = matrix (R, places) x, where `pixels` stand side by side along K: each
        thread gathers and transforms images of its own."""
        blocks, apart = self._blocks(x, pixels, size)

        def images(n: slice, who: int) -> None:
            if apart:
                self._gather(x[n], pixels, blocks[:, :, n])
            part = X[:, n]
            self.backend.matmul(
                matrix[:third], _matrix(blocks[:, :, n], 2), out=_matrix(part[:third])
            )
            np.add(part[first:second], part[second:third], out=part[third:])  # [spectral.4]

        first, second, third = self.first, self.second, self.third
        the_team().share_range(len(x), images)
        return X

    def _drop(self, matrix: Array, X: Array, pixels: list[Slices], size: Pair, y: Array) -> Array:
        """y = matrix (places, R) X, the adjoint of `_lift` where the matrix is transposed."""
        blocks, apart = self._blocks(y, pixels, size)

        def images(n: slice, who: int) -> None:
            self.backend.matmul(matrix, _matrix(X[:, n]), out=_matrix(blocks[:, :, n], 2))
            if apart:
                self._scatter(blocks[:, :, n], pixels, y[n])

        the_team().share_range(len(y), images)
        return y

    def _blocks(self, x: Array, pixels: list[Slices], size: Pair) -> tuple[Array, bool]:
        """Memory (*size, N, phases, C) and whether it is apart from x: not if x lies so itself."""
        places = x.transpose(1, 2, 0, 3)
        if len(pixels) == 1 and places.flags.c_contiguous and places[pixels[0]].size == x.size:
            return places[:, :, :, None], False
        return self._scratch("blocks", (*size, len(x), len(pixels), x.shape[3])), True

    def _gather(self, x: Array, pixels: list[Slices], blocks: Array) -> None:
        """The pixels of each phase side by side: [spectral.2]."""
        for f, phase in enumerate(pixels):
            part = x.transpose(1, 2, 0, 3)[phase]
            h, w = part.shape[:2]
            blocks[:h, :w, :, f] = part
            blocks[h:, :, :, f] = 0.0  # the last block of an axis may lack this remainder
            blocks[:h, w:, :, f] = 0.0

    def _scatter(self, blocks: Array, pixels: list[Slices], out: Array) -> None:
        """The adjoint of `_gather`."""
        for f, phase in enumerate(pixels):
            part = out.transpose(1, 2, 0, 3)[phase]
            part[...] = blocks[: part.shape[0], : part.shape[1], :, f]

    def _scratch(self, name: str, shape: tuple[int, ...]) -> Array:
        """Memory that all plans share, good until the next verb."""
        return self.backend.workspace(f"spectral {name}", shape)

    def _rooms(self, name: str, size: int) -> Array:
        """The same memory, so many numbers of it for every thread."""
        return self._scratch(name, (the_team().size, size))


def _room(memory: Array, shape: tuple[int, ...]) -> Array:
    """An array in the first part of flat memory."""
    return memory[: math.prod(shape)].reshape(shape)


def _matrix(a: Array, rows: int = 1) -> Array:
    """The first `rows` axes and the others, each as one: a view."""
    return a.reshape(math.prod(a.shape[:rows]), -1)
