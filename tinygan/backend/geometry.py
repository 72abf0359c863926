"""Where a convolution's kernel stands: sizes, strides and padding. Derivation: docs/convolution.md.

    y[n, p, q, o] = sum over a, b, c of x[n, p·sh + a - top, q·sw + b - left, c] · w[a, b, c, o]

with x = 0 outside of the image. Padding below and to the right needs no number of its own: the size
of the output alone says how far the kernel goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, NamedTuple

from tinygan.errors import OptionError, ShapeError

Pair = tuple[int, int]
Part = tuple[slice, slice, slice]  # of an array of images: all samples, some rows, some columns
Padding = str | int | tuple[Pair, Pair]
Sides = str | Pair  # along one axis: a word, or (before, after)


class Geometry(NamedTuple):
    """A convolution from images of size `input` to images of size `output`; pairs are (H, W)."""

    input: Pair
    kernel: Pair
    stride: Pair
    before: Pair  # padding above and to the left
    output: Pair

    def flat(self) -> tuple[int, ...]:
        """All ten numbers, as kernels take them."""
        return tuple(number for pair in self for number in pair)

    def taps(self) -> Iterator[tuple[Pair, tuple[slice, slice], tuple[slice, slice]]]:
        """((a, b), outputs, inputs) for each kernel offset that meets the image: [conv.2].

        `outputs` are the (p, q) at which it does, `inputs` the pixels it sees there, one for one.
        """
        rows, columns = (self.meetings(axis) for axis in (0, 1))
        for a, ps, hs in rows:
            for b, qs, ws in columns:
                yield (a, b), (ps, qs), (hs, ws)

    def places(self) -> list[tuple[int, Part, Part]]:
        """(a·kw + b, outputs, inputs) for the same, as indices of arrays (N, ...)."""
        kw, every = self.kernel[1], slice(None)
        return [
            (a * kw + b, (every, *outputs), (every, *inputs))
            for (a, b), outputs, inputs in self.taps()
        ]

    def meetings(self, axis: int) -> list[tuple[int, slice, slice]]:
        """(offset, outputs, inputs) along one axis."""
        found = []
        size, stride, before = self.input[axis], self.stride[axis], self.before[axis]
        for a in range(self.kernel[axis]):
            first = max(0, -((a - before) // stride))  # least p with p·stride + a - before >= 0
            end = min(self.output[axis], (size - 1 + before - a) // stride + 1)
            if first < end:
                start = first * stride + a - before
                pixels = slice(start, start + (end - 1 - first) * stride + 1, stride)
                found.append((a, slice(first, end), pixels))
        return found


def conv_geometry(input: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Geometry:
    """The geometry of a convolution of `input` images: [conv.3].

    padding: "SAME" (TensorFlow's), "VALID", p on all sides, or ((top, bottom), (left, right)).
    Raises OptionError for a padding that makes no sense, ShapeError where no output is left.
    """
    check_options(kernel, stride, padding)
    sizes = [_along(*axis) for axis in zip(input, kernel, stride, _sides(padding), strict=True)]
    before, output = zip(*sizes, strict=True)
    if min(output) < 1:
        pairs = zip(kernel, map(_total, _sides(padding)), strict=True)
        least = "x".join(str(max(1, k - p)) for k, p in pairs)
        raise ShapeError(f"images of at least {least} pixels")
    return Geometry(input, kernel, stride, before, output)


def _along(size: int, kernel: int, stride: int, sides: Sides) -> Pair:
    """(padding before, outputs) along one axis: [conv.3]."""
    if sides == "SAME":
        outputs = -(-size // stride)
        return max((outputs - 1) * stride + kernel - size, 0) // 2, outputs
    before, after = (0, 0) if isinstance(sides, str) else sides
    return before, (size + before + after - kernel) // stride + 1


def transposed_geometry(
    input: Pair, kernel: Pair, stride: Pair, padding: Padding, output_padding: Pair | None = None
) -> Geometry:
    """The geometry of the convolution whose adjoint takes `input` images up: [convt.3].

    Its `output` is the given `input`; its `input` is what the transposed convolution makes:
    SAME: input·stride; VALID: (input - 1)·stride + max(kernel, stride); explicit padding:
    (input - 1)·stride + kernel - padding on both sides + output_padding.
    """
    check_options(kernel, stride, padding, output_padding)
    extra, sides = output_padding or (0, 0), _sides(padding)
    axes = zip(input, kernel, stride, sides, extra, strict=True)
    large_h, large_w = (_size_above(*axis) for axis in axes)
    if min(large_h, large_w) < 1:
        raise ShapeError("larger images: its padding cuts everything off")
    top, left = (
        _along(size, k, s, side)[0]
        for size, k, s, side in zip((large_h, large_w), kernel, stride, sides, strict=True)
    )
    return Geometry((large_h, large_w), kernel, stride, (top, left), input)


def _size_above(size: int, kernel: int, stride: int, sides: Sides, extra: int) -> int:
    """The size of a transposed convolution's output along one axis: [convt.3]."""
    if sides == "SAME":
        return size * stride
    if sides == "VALID":
        return (size - 1) * stride + max(kernel, stride)
    return (size - 1) * stride + kernel - _total(sides) + extra


def pair(value: Any, of: str) -> Pair:
    """(H, W) of a number for both axes, or of two; OptionError, naming whose, for anything else."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(each, Integral) for each in both):
        raise OptionError(f"{of} is a whole number or two of them, not {value!r}")
    return int(both[0]), int(both[1])


def check_options(
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    output_padding: Pair | None = None,
) -> None:
    """Raise OptionError, in one line, for options that make no sense for images of any size."""
    if min(kernel) < 1 or min(stride) < 1:
        raise OptionError(f"kernel {kernel} and stride {stride} must be at least 1")
    if not _is_padding(padding):
        raise OptionError(
            f"unknown padding {padding!r}: choose SAME, VALID, a number or "
            "((top, bottom), (left, right))"
        )
    if isinstance(padding, str):
        if output_padding is not None:
            raise OptionError(f"output_padding {output_padding} goes with explicit padding only")
        return
    for k, sides in zip(kernel, _sides(padding), strict=True):
        if not all(0 <= side < k for side in sides if not isinstance(side, str)):
            raise OptionError(
                f"padding {padding} must be at least 0 and less than the kernel {kernel}: "
                "beyond, an output would see padding only"
            )
    for extra, s in zip(output_padding or (0, 0), stride, strict=True):
        if not 0 <= extra < s:
            raise OptionError(
                f"output_padding {output_padding} must be at least 0 and less than the stride "
                f"{stride}"
            )


def _is_padding(padding: Any) -> bool:
    if isinstance(padding, tuple):
        return len(padding) == 2 and all(
            isinstance(sides, tuple) and len(sides) == 2 and all(map(_is_whole, sides))
            for sides in padding
        )
    return _is_whole(padding) or (isinstance(padding, str) and padding in ("SAME", "VALID"))


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _sides(padding: Padding) -> tuple[Sides, Sides]:
    """The padding along each axis."""
    if isinstance(padding, str):
        return padding, padding
    if isinstance(padding, tuple):
        return padding
    return (padding, padding), (padding, padding)


def _total(sides: Sides) -> int:
    return 0 if isinstance(sides, str) else sum(sides)
