"""What NumPy cannot say to its BLAS: out += a b as one call, and how many threads to take.

BLAS computes C = αAB + βC; NumPy always passes β = 0, so that accumulating costs a scratch array
and two more passes over it. This module reaches the sgemm and dgemm of the OpenBLAS inside NumPy's
wheels. Where that library is built otherwise, or fails a first small product, `gemm_add` does
nothing and says so, and the backend takes its plain form.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

GemmAdd = Callable[[Any, Any, Any], bool]  # (a, b, out) -> whether it was done

# The processors, in OpenBLAS's words, for which it multiplies small matrices as they lie; on all
# others, and for larger ones, it first copies them into an order of its own ("packing").
AS_THEY_LIE, SMALL = ("SkylakeX", "Cooperlake", "SapphireRapids"), 1_000_000

ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112


@cache
def _library() -> Any:
    """NumPy's core module as a library: a look-up in it also finds the BLAS it was linked with."""
    core: Any = getattr(np, "_core", None)
    try:
        return ctypes.CDLL(core._multiarray_umath.__file__)
    except (AttributeError, OSError):
        return None


def _routine(library: ctypes.CDLL, name: str, real: Any) -> Any:
    """cblas_?gemm with 64-bit integers, as the wheels name it; AttributeError if there is none."""
    routine = getattr(library, f"scipy_cblas_{name}64_")
    order, size, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    routine.restype = None
    routine.argtypes = [order, order, order, size, size, size]
    routine.argtypes += [real, pointer, size, pointer, size, real, pointer, size]
    return routine


def _layout(a: Any) -> tuple[int, int] | None:
    """(transposed or not, leading dimension) of a matrix that BLAS can read as it lies."""
    rows, columns = a.strides
    if columns == a.itemsize and rows >= a.shape[1] * a.itemsize:
        return NO_TRANSPOSE, rows // a.itemsize
    if rows == a.itemsize and columns >= a.shape[0] * a.itemsize:
        return TRANSPOSE, columns // a.itemsize
    return None


def _routines() -> dict[Any, Any]:
    library = _library()
    if library is None:
        return {}
    try:
        return {
            np.dtype(np.float32): _routine(library, "sgemm", ctypes.c_float),
            np.dtype(np.float64): _routine(library, "dgemm", ctypes.c_double),
        }
    except AttributeError:
        return {}


def make_gemm_add() -> GemmAdd:
    """The function gemm_add(a, b, out): out += a b in one call.

    It returns False, having done nothing, where the arrays' layout or dtype is not one that BLAS
    takes, or where there is no such BLAS.
    """
    routines = _routines()

    def gemm_add(a: Any, b: Any, out: Any) -> bool:
        routine = routines.get(out.dtype)
        if routine is None or not (a.dtype == b.dtype == out.dtype):
            return False
        at, bt, into = _layout(a), _layout(b), _layout(out)
        (m, k), n = a.shape, b.shape[1]
        fits = b.shape[0] == k and out.shape == (m, n) and min(m, n, k) > 1
        if at is None or bt is None or into is None or not fits or not out.flags.writeable:
            return False
        if into[0] != NO_TRANSPOSE:
            return False
        left = at[0], bt[0], m, n, k, 1.0, a.ctypes.data, at[1], b.ctypes.data, bt[1]
        routine(ROW_MAJOR, *left, 1.0, out.ctypes.data, into[1])
        return True

    if not all(_works(gemm_add, dtype) for dtype in routines):
        routines.clear()
    return gemm_add


def _works(gemm_add: GemmAdd, dtype: Any) -> bool:
    """Whether small products of whole numbers, exact in any order, come out right."""
    a, b = np.arange(6, dtype=dtype).reshape(3, 2), np.arange(8, dtype=dtype).reshape(4, 2)
    out = np.ones((3, 4), dtype)
    return gemm_add(a, b.T, out) and bool((out == 1 + a @ b.T).all())


def unpacked() -> int:
    """Up to how many multiplications a product is made without packing; 0 if never or unknown."""
    try:
        name = _library().scipy_openblas_get_corename64_
    except AttributeError:
        return 0
    name.restype = ctypes.c_char_p
    return SMALL if name().decode() in AS_THEY_LIE else 0


def thread_count() -> int | None:
    """How many threads OpenBLAS has, or None where it cannot be asked."""
    try:
        return int(_library().scipy_openblas_get_num_threads64_())
    except AttributeError:
        return None


def take_threads() -> int:
    """How many threads OpenBLAS had; it is left with one. 1 where it cannot be asked."""
    count = thread_count()
    if count is None:
        return 1
    _library().scipy_openblas_set_num_threads64_(1)
    return count
