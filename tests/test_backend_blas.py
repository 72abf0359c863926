"""out += a b as one BLAS call: equal to NumPy's product, and modest where it does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygan.backend import blas, numpy_backend
from tinygan.backend.blas import make_gemm_add
from tinygan.backend.numpy_backend import NumpyBackend

gemm_add = make_gemm_add()


def whole(rng: np.random.Generator, rows: int, columns: int, dtype: str, layout: str) -> np.ndarray:
    """Small whole numbers, whose products are exact in any order, laid out as asked."""
    values = rng.integers(-4, 5, (rows, columns)).astype(dtype)
    if layout == "transposed":
        return np.ascontiguousarray(values.T).T
    if layout == "window":
        room = np.full((rows + 2, columns + 3), np.nan, dtype)
        room[1:-1, 1:-2] = values
        return room[1:-1, 1:-2]
    if layout == "strided":
        room = np.full((rows, 2 * columns), np.nan, dtype)
        room[:, ::2] = values
        return room[:, ::2]
    return values


layouts = st.sampled_from(["plain", "transposed", "window", "strided"])
sizes = st.integers(1, 9)


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, sizes, layouts, layouts, st.sampled_from(["float32", "float64"]))
def test_equals_numpy(m: int, k: int, n: int, la: str, lb: str, dtype: str) -> None:
    rng = np.random.default_rng(m + 10 * k + 100 * n)
    a, b = whole(rng, m, k, dtype, la), whole(rng, k, n, dtype, lb)
    out = whole(rng, m, n, dtype, "plain")
    before, expected = out.copy(), out + a @ b
    done = gemm_add(a, b, out)
    np.testing.assert_array_equal(out, expected if done else before)
    assert not (done and "strided" in (la, lb) and min(m, k, n) > 1)


@pytest.mark.skipif(not blas._routines(), reason="this NumPy is not built on its wheels' OpenBLAS")
def test_is_used_for_a_dense_layers_products() -> None:
    x, dy = np.ones((4, 3), "float32"), np.ones((4, 5), "float32")
    assert gemm_add(x.T, dy, np.zeros((3, 5), "float32"))


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (np.ones((3, 2)), np.ones((3, 4)), np.ones((3, 4))),
        (np.ones((3, 2)), np.ones((2, 4)), np.ones((4, 3))),
        (np.ones((3, 2), "float32"), np.ones((2, 4)), np.ones((3, 4))),
        (np.ones((3, 2)), np.ones((2, 4)), np.ones((4, 3)).T),
        (np.ones((3, 2)), np.ones((2, 4)), np.broadcast_to(np.ones(4), (3, 4))),
        (np.ones((3, 2), int), np.ones((2, 4), int), np.ones((3, 4), int)),
    ],
)
def test_leaves_alone_what_does_not_fit(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    before = out.copy()
    assert not gemm_add(a, b, out)
    np.testing.assert_array_equal(out, before)


def test_read_only_memory_is_not_written() -> None:
    out = np.ones((3, 4))
    out.flags.writeable = False
    assert not gemm_add(np.ones((3, 2)), np.ones((2, 4)), out)
    assert (out == 1).all()


def test_without_the_library_the_plain_form_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_library", lambda: None)
    backend = NumpyBackend("float64")
    out = np.ones((3, 4))
    backend.matmul_add(np.ones((3, 2)), np.ones((2, 4)), out=out)
    assert (out == 3).all()


def test_a_library_with_wrong_products_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_works", lambda gemm_add, dtype: False)
    assert not make_gemm_add()(np.ones((3, 2)), np.ones((2, 4)), np.ones((3, 4)))


@pytest.mark.parametrize(
    ("name", "limit"), [(b"SkylakeX", 1_000_000), (b"Cooperlake", 1_000_000), (b"Haswell", 0)]
)
def test_products_without_packing_are_known_by_the_processors_name(monkeypatch, name, limit):
    class Library:
        @staticmethod
        def scipy_openblas_get_corename64_():
            return name

    monkeypatch.setattr(blas, "_library", lambda: Library)
    assert blas.unpacked() == limit


def test_another_blas_is_not_asked_for_more(monkeypatch):
    monkeypatch.setattr(blas, "_library", lambda: None)
    assert blas.unpacked() == 0


def test_arrays_start_at_a_line_of_cache():
    for dtype in ("float32", "float64"):
        backend = NumpyBackend(dtype)
        for shape in ((), (3,), (5, 7, 3, 2)):
            assert backend.empty(shape).ctypes.data % 64 == 0
            assert backend.empty(shape).shape == shape
        assert backend.empty((4,), "int64").dtype == np.int64


@pytest.mark.parametrize(
    ("threads", "n", "cut"),
    [(1, 128, True), (None, 128, True), (2, 128, False), (1, 256, False), (1, 16, False)],
)
def test_products_are_cut_that_openblas_neither_shares_out_nor_packs_cheaply(
    monkeypatch, threads, n, cut
):
    backend = NumpyBackend()
    monkeypatch.setattr(backend, "_unpacked", 1_000_000)
    monkeypatch.setattr(numpy_backend, "thread_count", lambda: threads)
    W = np.ones((512, n), np.float32)
    assert (backend._piece(64, 512, W) != (64, n)) == cut


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("transposed", ["neither", "a", "b", "out"])
@pytest.mark.parametrize(
    ("m", "k", "n", "piece"),
    [(64, 16, 256, (16, 64)), (256, 16, 64, (16, 64)), (32, 9, 48, (16, 48)), (24, 5, 7, (7, 24))],
)
def test_a_product_in_pieces_is_the_product(monkeypatch, lead, transposed, m, k, n, piece):
    monkeypatch.setattr(numpy_backend, "thread_count", lambda: 1)
    backend, rng = NumpyBackend("float64"), np.random.default_rng(0)
    monkeypatch.setattr(backend, "_unpacked", 1_000_000)

    def draw(name, *shape):
        flip = name == transposed
        array = rng.standard_normal((*lead, *(shape[::-1] if flip else shape)))
        return array.swapaxes(-1, -2) if flip else array

    a, b, out = draw("a", m, k), draw("b", k, n), draw("out", m, n)
    backend._in_pieces(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-13)
    if transposed in ("a", "b"):  # the one that is b when the longer side of `out` lies crosswise
        crosswise = a.swapaxes(-1, -2) if m > n else b
        lies = crosswise.strides[-1] != crosswise.itemsize
        assert backend._piece(min(m, n), k, crosswise) == (
            piece if lies else (min(m, n), max(m, n))
        )
