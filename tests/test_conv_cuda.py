"""Convolutions and max pooling by own CUDA kernels, on the stand-in: the plain form, the battery,
and planted mistakes. Nothing here needs a device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
import pytest
import standin
from conv_cases import (
    ByPixel,
    arrays,
    batches,
    channels,
    conv_options,
    derivatives,
    drawn,
    transposed_options,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import Plain
from standin import compiled
from standin.module import RawModule

from tinygan.backend import cupy_backend, cupy_convolution
from tinygan.backend.convolution import DirectConvolution
from tinygan.backend.cupy_backend import BLOCK, CupyBackend, compiler_options, kernel_source
from tinygan.backend.cupy_convolution import LoweredConvolution
from tinygan.backend.geometry import Geometry, conv_geometry, transposed_geometry
from tinygan.gradcheck import check_layer
from tinygan.nn import Cache, Conv2D, ConvTranspose2D, Layer, MaxPool2D

Open = Callable[..., CupyBackend]

geometries = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it opens the same backend
)
drawn_geometries = st.one_of(
    conv_options().map(lambda options: conv_geometry(*options)),
    transposed_options().map(lambda options: transposed_geometry(*options)),
)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
needs_compiler = pytest.mark.skipif(compiled.compiler() is None, reason="no C++ compiler on Linux")
needs_nvrtc = pytest.mark.skipif(nvrtc.load() is None, reason="no NVRTC")

# Kernels that overlap and that leave gaps, a remainder, all sorts of padding, a single pixel.
GEOMETRIES = [
    conv_geometry((5, 6), (3, 4), (2, 1), "SAME"),
    conv_geometry((8, 7), (2, 3), (3, 2), "VALID"),
    conv_geometry((7, 4), (3, 2), (2, 2), ((2, 0), (0, 1))),
    conv_geometry((1, 1), (5, 5), (1, 1), "SAME"),
    transposed_geometry((3, 2), (5, 4), (2, 3), ((2, 1), (1, 1)), (1, 2)),
]
PIXELS = conv_geometry((4, 3), (1, 1), (1, 1), "SAME")
WINDOW = conv_geometry((4, 3), (4, 3), (2, 2), "VALID")


def close(got: Any, expected: Any, dtype: str) -> None:
    """Equal to rounding, measured by the largest number."""
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    bound = 1e-12 if dtype == "float64" else 2e-5
    assert float(np.abs(got - expected).max(initial=0.0)) <= bound * scale  # a NaN is not


def plain(dtype: str) -> Plain:
    """The reference: im2col and col2im by slices, in the patches' own order."""
    backend = Plain(dtype)
    backend._plan = lambda g, c_in, c_out: ByPixel(backend, g, c_in, c_out)  # type: ignore[method-assign]
    return backend


def plan_of(backend: CupyBackend, g: Geometry, c_in: int = 3, c_out: int = 2) -> LoweredConvolution:
    plan = backend.convolution(g, c_in, c_out)
    assert isinstance(plan, LoweredConvolution)
    return plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def engine_of(dtype: str, folder: Path, backwards: bool = False, source: str = "") -> Any:
    real = "float" if dtype == "float32" else "double"
    return compiled.engine(source or kernel_source(), real, BLOCK, folder, backwards)


@pytest.fixture(params=["emulated", pytest.param("compiled", marks=needs_compiler)])
def open_engine(
    request: pytest.FixtureRequest,
    cupy_standin: Open,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """A function dtype -> CupyBackend whose kernels run in NumPy, or as their own source."""

    def make(dtype: str) -> CupyBackend:
        engine = engine_of(dtype, folder) if request.param == "compiled" else None
        monkeypatch.setattr(RawModule, "engine", engine)
        return cupy_standin(dtype)

    return make


# ---- the plain form ----------------------------------------------------------------------------


@both_dtypes
@geometries
@given(drawn_geometries, batches, channels, channels)
def test_all_three_derivatives_equal_the_plain_form(
    open_engine: Open, dtype: str, g: Geometry, n: int, c_in: int, c_out: int
) -> None:
    x, w, y = arrays(g, n, c_in, c_out)
    expected = derivatives(plain(dtype), g, x, w, y)
    for ours, theirs in zip(derivatives(open_engine(dtype), g, x, w, y), expected, strict=True):
        close(ours, theirs, dtype)


def lowered(backend: Any, g: Geometry, x: Any, y: Any) -> tuple[Any, Any]:
    """im2col of x, and col2im of patches y (n, P, Q, patch) into memory full of NaN."""
    n, c = len(x), x.shape[3]
    plan = backend.convolution(g, c, 2)
    x, y = backend.from_host(x), backend.from_host(y)
    out = backend.empty_images((n, *g.input, c))
    out.fill(float("nan"))
    if isinstance(plan, LoweredConvolution):
        patches = backend.to_host(plan._im2col(x)).reshape(y.shape)
        room = plan._patches_of(out)
        room[...] = y.reshape(room.shape)
        plan._col2im(room, out)
    else:
        patches = backend.to_host(plan._patches(x))
        plan._put_back(y, out)
    return patches, backend.to_host(out)


def same_bits(backend: CupyBackend, g: Geometry, n: int, c: int, seed: int = 0) -> None:
    """AssertionError unless the kernels copy, and add in the same order, as the plain form does."""
    x, y = drawn(seed, (n, *g.input, c), (n, *g.output, g.kernel[0] * g.kernel[1] * c))
    expected = lowered(plain(str(backend.dtype)), g, x, y)
    for ours, theirs in zip(lowered(backend, g, x, y), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@both_dtypes
@geometries
@given(drawn_geometries, batches, channels, st.integers(0, 99))
def test_patches_have_the_plain_forms_bits(
    open_engine: Open, dtype: str, g: Geometry, n: int, c: int, seed: int
) -> None:
    same_bits(open_engine(dtype), g, n, c, seed)


@pytest.mark.parametrize("g", [PIXELS, WINDOW], ids=["pixels", "window"])
def test_patches_that_are_the_images_are_not_copied(open_engine: Open, g: Geometry) -> None:
    backend = open_engine("float64")
    x, w, y = arrays(g, 3, 3, 2)
    expected = derivatives(plain("float64"), g, x, w, y)
    with standin.launched() as seen:
        same_bits(backend, g, 2, 3)
        for ours, theirs in zip(derivatives(backend, g, x, w, y), expected, strict=True):
            close(ours, theirs, "float64")
    assert not {"im2col", "col2im"} & {*seen}


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_col2im_is_the_exact_adjoint(open_engine: Open, g: Geometry) -> None:
    """<im2col(x), y> = <x, col2im(y)>: of small whole numbers, to the last bit."""
    x, y = drawn(0, (2, *g.input, 3), (2, *g.output, g.kernel[0] * g.kernel[1] * 3))
    x, y = np.round(8 * x), np.round(8 * y)
    patches, gathered = lowered(open_engine("float64"), g, x, y)
    assert (patches * y).sum() == (x * gathered).sum()


@pytest.mark.parametrize("kind", [Conv2D, ConvTranspose2D])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (5, 2, "SAME"),
        (3, 1, "SAME"),
        ((2, 3), 3, "VALID"),
        ((4, 3), (1, 2), ((3, 1), (0, 2))),
        (1, 1, "SAME"),
        ((4, 5), 1, "VALID"),
    ],
)
def test_the_battery(cupy_standin: Open, kind: Any, kernel: Any, stride: Any, padding: Any) -> None:
    check_layer(kind(2, 3, kernel, stride, padding), (4, 5, 2), train=(True,), backend=cupy_standin)


def test_the_battery_with_output_padding(cupy_standin: Open) -> None:
    layer = ConvTranspose2D(2, 3, 4, 3, 1, (2, 1))
    for batch in (1, 3):
        check_layer(layer, (3, 2, 2), batch=batch, train=(True,), backend=cupy_standin)


# ---- launches, memory, order -------------------------------------------------------------------


GEMM = "cublasGemmEx"


@pytest.mark.parametrize("g", [*GEOMETRIES, PIXELS], ids=str)
def test_two_launches_for_each_derivative(cupy_standin: Open, g: Geometry) -> None:
    """With a product's accumulation for the weight's gradient; no wait, no copy."""
    backend = cupy_standin()
    x, w, y = (backend.from_host(a) for a in arrays(g, 3, 3, 2))
    dy, dx, dw = backend.empty(y.shape), backend.empty(x.shape), backend.zeros(w.shape)
    plan = plan_of(backend, g)
    with standin.launched() as seen, standin.counted() as events:
        plan.output(x, w, dy)
        plan.input(y, w, dx)
        plan.add_weight(x, y, dw)
    assert events == []
    copies = ["im2col", GEMM, GEMM, "col2im", "im2col", GEMM]
    assert seen == ([GEMM] * 3 if g is PIXELS else copies)
    assert {*backend._workspaces} <= {"patches"}  # one memory for all of them


def test_a_recorded_convolution_is_the_same(cupy_standin: Open) -> None:
    """In a graph, call after call: new contents, the same bits as launch by launch."""
    backend, g = cupy_standin(), GEOMETRIES[0]
    x, w, y = (backend.from_host(a) for a in arrays(g, 3, 3, 2))
    dy, dx, dw = backend.empty(y.shape), backend.empty(x.shape), backend.zeros(w.shape)
    plan = plan_of(backend, g)

    def step() -> None:
        plan.output(x, w, dy)
        plan.input(y, w, dx)
        plan.add_weight(x, y, dw)

    def result(move: Callable[[], object]) -> list[Any]:
        x[...] = x + 1.0
        dw.fill(0.0)
        move()
        return [backend.to_host(a) for a in (dy, dx, dw)]

    recorded, answers = backend.capture(step), []
    for move in (step, recorded):
        x[...] = 0.0
        answers.append([result(move) for _ in range(5)])
    with standin.launched() as seen:
        recorded()
    assert seen == ["graph"]
    for one, other in zip(*answers, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("most", [1, 2, 3])
@both_dtypes
def test_parts_of_a_minibatch_equal_the_whole(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch, dtype: str, most: int
) -> None:
    for g in GEOMETRIES:
        x, w, y = arrays(g, 5, 3, 2)
        whole = derivatives(open_engine(dtype), g, x, w, y)
        size = cupy_convolution.largest(g, 3) * np.dtype(dtype).itemsize
        with monkeypatch.context() as patch:
            patch.setattr(cupy_convolution, "LIMIT", most * size + size // 2)
            backend = open_engine(dtype)
            assert plan_of(backend, g).part == most
            for ours, theirs in zip(derivatives(backend, g, x, w, y), whole, strict=True):
                close(ours, theirs, dtype)
            assert backend._workspaces["patches"].nbytes <= most * size


def test_a_sample_beyond_the_limit_goes_alone(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_convolution, "LIMIT", 1)
    assert plan_of(cupy_standin(), GEOMETRIES[0]).part == 1


def test_what_32_bits_cannot_count_goes_the_plain_way(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = conv_geometry((1 << 10, 1 << 10), (4, 4), (1, 1), "SAME")
    assert type(cupy_standin().convolution(g, 127, 8)) is LoweredConvolution
    assert type(cupy_standin().convolution(g, 128, 8)) is DirectConvolution
    monkeypatch.setattr(cupy_backend, "COUNT", 10)
    with standin.launched() as seen:
        same_pool(cupy_standin(), GEOMETRIES[0], *pool_case(GEOMETRIES[0]))
    assert not {"max_pool", "max_pool_backward"} & {*seen}


def test_an_empty_minibatch(cupy_standin: Open) -> None:
    g, backend = GEOMETRIES[0], cupy_standin()
    x, w, y = arrays(g, 0, 3, 2)
    of_y, of_x, of_w = derivatives(backend, g, x, w, y)
    assert (of_y.shape, of_x.shape) == (y.shape, x.shape)
    assert not of_w.any()


@needs_compiler
@both_dtypes
def test_the_order_of_threads_does_not_matter(
    cupy_standin: Open, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    results: list[Any] = []
    for backwards in (False, True, False):
        monkeypatch.setattr(RawModule, "engine", engine_of(dtype, folder, backwards))
        backend = cupy_standin(dtype)
        parts = [derivatives(backend, g, *arrays(g, 2, 3, 2)) for g in GEOMETRIES]
        parts += [pooled(backend, g, *pool_case(g)) for g in GEOMETRIES]
        results.append([a for part in parts for a in part])
    for one, other in pairwise(results):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_images_in_another_order_are_copied(cupy_standin: Open) -> None:
    backend, g = cupy_standin("float64"), GEOMETRIES[0]
    x, _, y = arrays(g, 2, 3, 2)
    plan, cache = plan_of(backend, g), Cache(backend)
    there = backend.from_host(x)
    assert plan.lift_input(there, cache, "X") is there
    for lift, a in ((plan.lift_input, x), (plan.lift_output, y)):
        turned = backend.from_host(np.ascontiguousarray(a.transpose(1, 2, 0, 3)))
        for view in (turned.transpose(2, 0, 1, 3), backend.from_host(a, dtype="float32")):
            lifted = lift(view, cache, "view")
            assert lifted.flags.c_contiguous
            assert lifted.dtype == backend.dtype
            np.testing.assert_allclose(backend.to_host(lifted), a, rtol=1e-6)
    with pytest.raises(TypeError):
        plan.lift_input(x, cache, "foreign")


# ---- max pooling -------------------------------------------------------------------------------


def pool_case(g: Geometry, flavour: str = "normal", n: int = 2, c: int = 3, seed: int = 0) -> Any:
    """(x, dy): x with ties, or with a few NaN and infinities."""
    x, dy = drawn(seed, (n, *g.input, c), (n, *g.output, c))
    if flavour == "ties":
        x = np.round(x)
    if flavour == "odd":
        x.flat[:: x.shape[2] + 2], x.flat[1::5] = np.nan, np.inf
    return x, dy


def pooled(backend: Any, g: Geometry, x: Any, dy: Any) -> list[Any]:
    """y, winner and dx, in memory that was full of NaN."""
    x, dy = backend.from_host(x), backend.from_host(dy)
    y, winner, dx = (backend.empty_images(shape) for shape in (dy.shape, dy.shape, x.shape))
    for out in (y, winner, dx):
        out.fill(float("nan"))
    backend.max_pool(x, g, y, winner)
    backend.max_pool_backward(dy, winner, g, out=dx)
    return [backend.to_host(a) for a in (y, winner, dx)]


def same_pool(backend: CupyBackend, g: Geometry, x: Any, dy: Any) -> None:
    with np.errstate(all="ignore"):
        expected = pooled(Plain(str(backend.dtype)), g, x, dy)
        for ours, theirs in zip(pooled(backend, g, x, dy), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@both_dtypes
@geometries
@given(
    conv_options(), batches, channels, st.sampled_from(["normal", "ties", "odd"]), st.integers(0, 9)
)
def test_max_pooling_has_the_plain_forms_bits(
    open_engine: Open, dtype: str, options: Any, n: int, c: int, flavour: str, seed: int
) -> None:
    g = conv_geometry(*options)
    same_pool(open_engine(dtype), g, *pool_case(g, flavour, n, c, seed))


def test_max_pooling_is_one_launch_each_way(cupy_standin: Open) -> None:
    backend, g = cupy_standin(), GEOMETRIES[0]
    x, dy = (backend.from_host(a) for a in pool_case(g))
    y, winner, dx = (backend.empty(shape) for shape in (dy.shape, dy.shape, x.shape))
    with standin.launched() as seen:
        backend.max_pool(x, g, y, winner)
        backend.max_pool_backward(dy, winner, g, out=dx)
    assert seen == ["max_pool", "max_pool_backward"]


def test_views_are_pooled_the_plain_way(cupy_standin: Open) -> None:
    backend, g = cupy_standin("float64"), GEOMETRIES[0]
    x, dy = pool_case(g)
    expected = pooled(Plain("float64"), g, x, dy)
    there = backend.from_host(np.ascontiguousarray(x.transpose(1, 2, 0, 3))).transpose(2, 0, 1, 3)
    y, winner = backend.empty(dy.shape), backend.empty(dy.shape)
    with standin.launched() as seen:
        backend.max_pool(there, g, y, winner)
    assert "max_pool" not in seen
    for ours, theirs in zip((y, winner), expected, strict=False):
        np.testing.assert_array_equal(backend.to_host(ours), theirs)


@pytest.mark.parametrize("layer", [MaxPool2D(), MaxPool2D(3, 2, "SAME"), MaxPool2D((2, 1), 1)])
def test_the_battery_of_max_pooling(cupy_standin: Open, layer: Layer) -> None:
    check_layer(layer, (5, 4, 2), backend=cupy_standin)


# ---- the compiler ------------------------------------------------------------------------------


@needs_nvrtc
@both_dtypes
def test_indices_are_taken_apart_in_32_bits(dtype: str) -> None:
    """A division of 64 bits is a routine of many instructions."""
    long_division = ("div.s64", "div.u64", "rem.s64", "rem.u64")

    def found(source: str) -> list[str]:
        options = (*compiler_options(dtype), "--gpu-architecture=compute_90")
        ptx = nvrtc.compile_to_ptx(source, options)
        bodies = {part.split("(")[0]: part for part in ptx.split(".entry ")[1:]}
        ours = ("im2col", "col2im", "max_pool", "max_pool_backward")
        return [name for name in ours if any(word in bodies[name] for word in long_division)]

    source = kernel_source()
    assert found(source) == []
    assert "i = (unsigned int)THREAD;" in source
    wide = source.replace("index % (unsigned int)size", "(unsigned int)(index % size)")
    assert len(found(wide)) == 4


# ---- planted mistakes --------------------------------------------------------------------------


def check_all(backend: CupyBackend, cases: list[Geometry] = GEOMETRIES, n: int = 2) -> None:
    for g in cases:
        same_bits(backend, g, n, 3)
        for flavour in ("normal", "ties", "odd"):
            same_pool(backend, g, *pool_case(g, flavour, n))


COLUMNS = "for (int b = b0, q = (int)q0; b < kw && q >= 0; b += (int)sw, q--)"
ROWS = "for (int a = a0, p = (int)p0; a < kh && p >= 0; a += (int)sh, p--)"
MISTAKES = {
    "a kernel turned round": ("patch[a * strip]", "patch[(kh - 1 - a) * strip]"),
    "padding off by one, above": ("p * sh + a - top", "p * sh + a - top + 1"),
    "padding off by one, left": ("q * sw - left) * C", "q * sw - left + 1) * C"),
    "padding off by one, back": ("(unsigned int)top;", "(unsigned int)top + 1;"),
    "a row beyond the image": ("inside && 0 <= h && h < H", "inside && 0 <= h && h < H - 1"),
    "the last image column": ("at < W * C", "at < (W - 1) * C"),
    "the stride's remainder left as it was": (
        "    out[THREAD] = sum;",
        "    if (a0 < kh && b0 < kw) out[THREAD] = sum;",
    ),
    "windows behind the last one": ("if (p < P && q < Q)", "if (p < P)"),
    "one tap for each pixel": ("a += (int)sh, p--", "a += (int)kh, p--"),
    "a stride that is not one": ("a += (int)sh, p--", "a += 1, p--"),
    "taps row by column": ("* kh + a) * kw + b) * C", "* kw + b) * kh + a) * C"),
    "taps in another order": (ROWS, COLUMNS),  # and COLUMNS becomes ROWS
    "the last channel": ("coordinate = index % (unsigned int)size", "coordinate = index % 2u"),
    "of equals the last": ("if (value > best) place", "if (value >= best) place"),
    "NaN lost": ("value > best || value != value", "value > best"),
    "every window pays": ("if (winner[window] == (REAL)(a * kw + b)) sum", "sum"),
}


@needs_compiler
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_source_is_caught(
    cupy_standin: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    right, wrong = MISTAKES[mistake]
    source = kernel_source()
    assert right in source
    if right is ROWS:
        source = source.replace(COLUMNS, "swapped")
        source = source.replace(ROWS, COLUMNS).replace("swapped", ROWS)
    else:
        source = source.replace(right, wrong)
    monkeypatch.setattr(RawModule, "engine", engine_of("float32", tmp_path, source=source))
    with pytest.raises(AssertionError):
        check_all(cupy_standin("float32"))


@both_dtypes
def test_without_a_mistake_nothing_is_caught(open_engine: Open, dtype: str) -> None:
    check_all(open_engine(dtype))


@pytest.mark.parametrize("kernel", ["im2col", "col2im", "max_pool", "max_pool_backward"])
def test_a_launch_that_is_too_small_is_caught(cupy_standin: Open, kernel: str) -> None:
    backend = cupy_standin("float32")
    launch = backend._launch

    def one_block_short(name: str, blocks: int, *args: Any) -> None:
        launch(name, max(1, blocks - (name == kernel)), *args)

    backend._launch = one_block_short  # type: ignore[method-assign]
    g = conv_geometry((9, 9), (3, 3), (1, 1), "SAME")
    with pytest.raises(AssertionError):
        check_all(backend, [g], n=4)
