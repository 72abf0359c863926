"""cuBLAS through a handle of our own.

CuPy's products set the stream of its handle at every call, and refuse to while a CUDA graph is
recorded. Ours has its stream and its workspace set once, so that products can be recorded, and
equal inputs give equal bits whichever way a step is made: [gpu.3].
"""

from __future__ import annotations

import ctypes
from typing import Any

from tinygan.backend.interface import Array

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for its newer devices
NORMAL, TRANSPOSED, NEITHER = 0, 1, -1
DEFAULT_ALGORITHM = -1
REAL_TYPES = {"float32": 0, "float64": 1}  # cudaDataType_t
SCALARS: dict[str, Any] = {"float32": ctypes.c_float, "float64": ctypes.c_double}
COMPUTE_TYPES = {("float32", "float32"): 68, ("float32", "tf32"): 77, ("float64", "float32"): 70}

Layout = tuple[int, int]  # NORMAL, TRANSPOSED or NEITHER; leading dimension, in elements


def load() -> Any:
    """The library that CuPy uses, too."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


class Cublas:
    """Products of row-major matrices, and of their transposes, on one stream.

    Raises RuntimeError where cuBLAS refuses.
    """

    def __init__(self, stream: int, workspace: Array) -> None:
        self._library, self._handle = load(), ctypes.c_void_p()
        self._workspace = workspace  # kept alive
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        address, size = ctypes.c_void_p(workspace.data.ptr), ctypes.c_size_t(workspace.nbytes)
        self._call("cublasSetWorkspace_v2", self._handle, address, size)

    def takes(self, a: Array, b: Array, out: Array) -> bool:
        """Whether `product` can have these arrays."""
        arrays = (a, b, out)
        return (
            str(out.dtype) in REAL_TYPES
            and out.ndim in (2, 3)
            and all(x.ndim == out.ndim and x.dtype == out.dtype and x.size for x in arrays)
            and all(_layout(x)[0] != NEITHER for x in arrays)
        )

    def product(self, a: Array, b: Array, out: Array, precision: str, add: bool = False) -> None:
        """out = a b, or with `add` out += a b: a (m, k), b (k, n).

        Arrays of three axes are as many products as their first axis is long.
        """
        if _layout(out)[0] == TRANSPOSED:  # outᵀ = bᵀ aᵀ
            a, b, out = _transposed(b), _transposed(a), _transposed(out)
        # To cuBLAS, a matrix that lies row by row is a transposed one: it makes outᵀ = bᵀ aᵀ.
        dtype, (m, n), k = str(out.dtype), out.shape[-2:], a.shape[-1]
        scalar = SCALARS[dtype]
        batched = out.ndim == 3
        self._call(
            "cublasGemmStridedBatchedEx" if batched else "cublasGemmEx",
            self._handle,
            *(_layout(b)[0], _layout(a)[0]),
            *(n, m, k),
            ctypes.byref(scalar(1.0)),
            *_operand(b),
            *_operand(a),
            ctypes.byref(scalar(float(add))),
            *_operand(out),
            *([len(out)] if batched else []),
            COMPUTE_TYPES[dtype, precision],
            DEFAULT_ALGORITHM,
        )

    def _call(self, function: str, *args: Any) -> None:
        status = getattr(self._library, function)(*args)
        if status:
            raise RuntimeError(f"{function} of cuBLAS ended with status {status}")


def _layout(x: Array) -> Layout:
    """How the last two axes of x lie in memory."""
    rows, columns = x.shape[-2:]
    down, right = (stride // x.itemsize for stride in x.strides[-2:])
    by_rows = columns if rows == 1 else down
    if (columns == 1 or right == 1) and by_rows >= columns:
        return NORMAL, by_rows
    by_columns = rows if columns == 1 else right
    if (rows == 1 or down == 1) and by_columns >= rows:
        return TRANSPOSED, by_columns
    return NEITHER, 0


def _operand(x: Array) -> list[Any]:
    """Where x lies, of what type it is, and from one row (and one matrix) to the next."""
    about = [ctypes.c_void_p(x.data.ptr), REAL_TYPES[str(x.dtype)], _layout(x)[1]]
    return about if x.ndim == 2 else [*about, ctypes.c_longlong(x.strides[0] // x.itemsize)]


def _transposed(x: Array) -> Array:
    return x.transpose(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
