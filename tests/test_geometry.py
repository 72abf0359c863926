"""Sizes and padding: TensorFlow's formulas, worked by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import conv_options, transposed_options
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan.backend.geometry import Geometry, conv_geometry, transposed_geometry
from tinygan.errors import OptionError, ShapeError
from tinygan.nn import Conv2D, MaxPool2D, UpSample


def square(size, kernel, stride, padding):
    return conv_geometry((size, size), (kernel, kernel), (stride, stride), padding)


# ---- SAME as TensorFlow defines it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "output"),
    [
        # outputs = ceil(size / stride); padding = max((outputs - 1)·stride + kernel - size, 0),
        # the smaller half of it before
        (28, 5, 2, 1, 14),  # 13·2 + 5 - 28 = 3: one before, two after
        (14, 5, 2, 1, 7),  # 6·2 + 5 - 14 = 3
        (7, 5, 1, 2, 7),  # 6 + 5 - 7 = 4
        (7, 3, 2, 1, 4),  # 3·2 + 3 - 7 = 2
        (8, 3, 2, 0, 4),  # 3·2 + 3 - 8 = 1: none before, one after
        (7, 5, 2, 2, 4),  # 3·2 + 5 - 7 = 4
        (5, 2, 1, 0, 5),  # 4 + 2 - 5 = 1
        (7, 4, 2, 1, 4),  # 3·2 + 4 - 7 = 3
        (7, 4, 3, 1, 3),  # 2·3 + 4 - 7 = 3
        (9, 4, 3, 0, 3),  # 2·3 + 4 - 9 = 1
        (1, 5, 3, 2, 1),  # 5 - 1 = 4
        (2, 5, 3, 1, 1),  # 5 - 2 = 3
        (7, 2, 3, 0, 3),  # stride > kernel: 2·3 + 2 - 7 = 1
        (6, 2, 3, 0, 2),  # 3 + 2 - 6 < 0: none, and pixels 2 and 5 are never seen
        (9, 1, 3, 0, 3),
        (10, 1, 3, 0, 4),
        (5, 1, 2, 0, 3),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, before, output):
    g = square(size, kernel, stride, "SAME")
    assert (g.before, g.output) == ((before, before), (output, output))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "output"),
    [(7, 5, 1, 3), (7, 5, 2, 2), (8, 5, 2, 2), (9, 5, 2, 3), (5, 5, 3, 1), (7, 1, 3, 3)],
)
def test_valid_padding_lets_the_kernel_stay_inside(size, kernel, stride, output):
    g = square(size, kernel, stride, "VALID")
    assert (g.before, g.output) == ((0, 0), (output, output))


def test_explicit_padding():
    g = conv_geometry((7, 8), (3, 4), (2, 1), ((1, 0), (2, 3)))
    assert g == Geometry((7, 8), (3, 4), (2, 1), (1, 2), (3, 10))
    assert square(7, 3, 1, 1) == square(7, 3, 1, ((1, 1), (1, 1))) == square(7, 3, 1, "SAME")


def test_axes_are_told_apart():
    g = conv_geometry((28, 7), (5, 3), (2, 1), "SAME")
    assert g == Geometry((28, 7), (5, 3), (2, 1), (1, 1), (14, 7))


# ---- transposed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "extra", "large", "before"),
    [
        (7, 5, 1, "SAME", None, 7, 2),
        (7, 5, 2, "SAME", None, 14, 1),
        (14, 5, 2, "SAME", None, 28, 1),
        (3, 2, 3, "SAME", None, 9, 0),  # stride > kernel: gaps between the kernels
        (7, 5, 2, "VALID", None, 17, 0),  # 6·2 + 5
        (3, 2, 3, "VALID", None, 9, 0),  # 2·3 + max(2, 3)
        (4, 4, 2, 1, None, 8, 1),  # 3·2 + 4 - 2
        (4, 5, 2, 2, 1, 8, 2),  # 3·2 + 5 - 4 + 1
        (4, 5, 2, 2, 0, 7, 2),
        (4, 3, 3, 0, 2, 14, 0),  # 3·3 + 3 + 2
    ],
)
def test_sizes_of_a_transposed_convolution(size, kernel, stride, padding, extra, large, before):
    g = transposed_geometry(
        (size, size),
        (kernel, kernel),
        (stride, stride),
        padding,
        None if extra is None else (extra, extra),
    )
    assert g.input == (large, large)
    assert g.output == (size, size)
    assert g.before == (before, before)


@settings(deadline=None)
@given(transposed_options())
def test_the_convolution_below_leads_back(options):
    """The conv whose adjoint it is, by the same padding, goes from the large size to the given."""
    size, kernel, stride, padding, extra = options
    g = transposed_geometry(size, kernel, stride, padding, extra)
    assert conv_geometry(g.input, kernel, stride, padding) == g


@settings(deadline=None)
@given(conv_options())
def test_every_output_sees_a_pixel_or_could(options):
    """The first kernel position meets the image, and the last one begins inside or before it."""
    g = conv_geometry(*options)
    for axis in range(2):
        assert 0 <= g.before[axis] < g.kernel[axis]
        last = (g.output[axis] - 1) * g.stride[axis] - g.before[axis]
        assert last < g.input[axis]


# ---- taps ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(conv_options(), st.data())
def test_taps_name_every_meeting_once(options, data):
    g = conv_geometry(*options)
    (H, W), _, (sh, sw), (top, left), (P, Q) = g
    found = set()
    for (a, b), (ps, qs), (hs, ws) in g.taps():
        for p, h in zip(range(P)[ps], range(H)[hs], strict=True):
            for q, v in zip(range(Q)[qs], range(W)[ws], strict=True):
                assert (h, v) == (p * sh + a - top, q * sw + b - left)
                found.add((a, b, p, q))
    inside = {
        (a, b, p, q)
        for a in range(g.kernel[0])
        for b in range(g.kernel[1])
        for p in range(P)
        for q in range(Q)
        if 0 <= p * sh + a - top < H and 0 <= q * sw + b - left < W
    }
    assert found == inside


# ---- what makes no sense -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "message"),
    [
        ((0, 3), (1, 1), "SAME", r"kernel \(0, 3\) and stride \(1, 1\) must be at least 1"),
        ((3, 3), (1, 0), "SAME", r"kernel \(3, 3\) and stride \(1, 0\) must be at least 1"),
        ((3, 3), (1, 1), "same", r"unknown padding 'same': choose SAME, VALID, a number or \(\("),
        ((3, 3), (1, 1), (1, 1), r"unknown padding \(1, 1\): choose SAME, VALID, a number"),
        ((3, 3), (1, 1), 3, r"padding 3 must be at least 0 and less than the kernel \(3, 3\)"),
        ((3, 3), (1, 1), -1, r"padding -1 must be at least 0 and less than the kernel \(3, 3\)"),
        ((3, 2), (1, 1), ((1, 1), (0, 2)), r"padding \(\(1, 1\), \(0, 2\)\) must be at least 0"),
    ],
)
@pytest.mark.parametrize("make", [conv_geometry, transposed_geometry])
def test_options_without_sense_are_refused(make, kernel, stride, padding, message):
    with pytest.raises(OptionError, match=message):
        make((8, 8), kernel, stride, padding)


@pytest.mark.parametrize(
    ("padding", "extra", "message"),
    [
        (
            1,
            (2, 0),
            r"output_padding \(2, 0\) must be at least 0 and less than the stride \(2, 2\)",
        ),
        (1, (0, -1), r"output_padding \(0, -1\) must be at least 0"),
        ("SAME", (1, 1), r"output_padding \(1, 1\) goes with explicit padding only"),
        ("VALID", (0, 0), r"output_padding \(0, 0\) goes with explicit padding only"),
    ],
)
def test_output_padding_without_sense_is_refused(padding, extra, message):
    with pytest.raises(OptionError, match=message):
        transposed_geometry((4, 4), (3, 3), (2, 2), padding, extra)


@pytest.mark.parametrize(
    ("size", "padding", "message"),
    [
        ((4, 9), "VALID", "images of at least 5x5 pixels"),
        ((2, 9), 1, "images of at least 3x3 pixels"),
    ],
)
def test_an_empty_output_is_refused(size, padding, message):
    with pytest.raises(ShapeError, match=message):
        conv_geometry(size, (5, 5), (1, 1), padding)


def test_an_output_that_is_all_cut_off_is_refused():
    with pytest.raises(ShapeError, match="larger images: its padding cuts everything off"):
        transposed_geometry((1, 1), (3, 3), (1, 1), 2)


@pytest.mark.parametrize("kernel", [(3, 4, 5), 2.5, (3, 2.5), "3", None, ()])
@pytest.mark.parametrize("make", [lambda k: Conv2D(1, 1, k), MaxPool2D, UpSample])
def test_a_size_is_one_or_two_whole_numbers(make, kernel):
    with pytest.raises(
        OptionError, match=r"(Conv2D|MaxPool2D|UpSample)'s \w+ is a whole number or two"
    ):
        make(kernel)


def test_numpys_integers_are_whole_numbers():
    assert Conv2D(1, 1, np.int64(3)).kernel == (3, 3)
