"""The little of cuBLAS that the library calls through ctypes, on the stand-in's memory.

Matrices lie column by column. A call is refused if its arguments would not survive ctypes: without
`argtypes`, a Python int is passed in 32 bits, too few for an address or a stride.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from standin.capture import current, is_stream, launch
from standin.memory import Memory, at

SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
DEFAULT_ALGORITHM = -1
FAST_TF32 = 77
# cublasComputeType_t: (cudaDataType_t, its dtype, the type of alpha and beta)
SINGLE, DOUBLE = (0, np.float32, ctypes.c_float), (1, np.float64, ctypes.c_double)
COMPUTE = {68: SINGLE, FAST_TF32: SINGLE, 70: DOUBLE}

GEMM = "handle:pointer ta:int tb:int m:int n:int k:int alpha:pointer {} beta:pointer {} {}"
OPERAND = "{0}:pointer {0}type:int ld{0}:int"
STRIDED = OPERAND + " stride{0}:long"
SIGNATURES = {
    "cublasCreate_v2": "handle:pointer",
    "cublasDestroy_v2": "handle:pointer",
    "cublasSetStream_v2": "handle:pointer stream:pointer",
    "cublasSetWorkspace_v2": "handle:pointer workspace:pointer size:long",
    "cublasGemmEx": GEMM.format(
        f"{OPERAND.format('a')} {OPERAND.format('b')}",
        OPERAND.format("c"),
        "compute:int algorithm:int",
    ),
    "cublasGemmStridedBatchedEx": GEMM.format(
        f"{STRIDED.format('a')} {STRIDED.format('b')}",
        STRIDED.format("c"),
        "batch:int compute:int algorithm:int",
    ),
}


class Function:
    """A function of the library as ctypes shows it."""

    argtypes: Any = None
    restype: Any = ctypes.c_int

    def __init__(self, name: str, run: Callable[..., int]) -> None:
        self.name, self.run = name, run
        self.parameters = [part.split(":") for part in SIGNATURES[name].split()]

    def __call__(self, *args: Any) -> int:
        declared = self.argtypes or [None] * len(args)
        if not len(args) == len(declared) == len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        assert self.restype is ctypes.c_int, f"{self.name} returns an int"
        passed = zip(self.parameters, args, declared, strict=True)
        return self.run(*(self._arrives(*about, value, d) for about, value, d in passed))

    def _arrives(self, parameter: str, kind: str, value: Any, declared: Any) -> Any:
        """A number, an address, or what a reference refers to."""
        size = ctypes.sizeof(ctypes.c_int if kind == "int" else ctypes.c_void_p)
        where = f"{self.name}: {parameter} ({kind})"
        if declared is not None and ctypes.sizeof(declared) != size:
            raise TypeError(f"{where} is declared as {declared.__name__}")
        if kind == "pointer" and (hasattr(value, "_obj") or hasattr(value, "contents")):
            return value._obj if hasattr(value, "_obj") else value.contents
        if isinstance(value, ctypes._SimpleCData):
            fits = isinstance(value, ctypes.c_void_p) == (kind == "pointer")
            if not fits or ctypes.sizeof(value) != size:
                raise TypeError(f"{where} is given a {type(value).__name__}")
            return value.value or 0
        if value is None and kind == "pointer":
            return 0
        if type(value) is not int or (declared is None and kind != "int"):
            raise TypeError(f"{where} is given a Python {type(value).__name__}")
        return value


@dataclass
class Handle:
    stream: int | None = None  # None: nobody has set it
    workspace: Callable[[], Memory | None] = lambda: None


class Operand(NamedTuple):
    address: int
    type: int
    ld: int  # from the start of one column to the next
    stride: int  # from one matrix to the next

    def matrices(self, dtype: Any, batch: int, rows: int, columns: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize
        strides = (self.stride * size, size, self.ld * size)
        return at(self.address).array(self.address, dtype, (batch, rows, columns), strides)


class Library:
    """What ctypes.CDLL would be; `handles` are those that have not been destroyed."""

    def __init__(self) -> None:
        self.handles: dict[int, Handle] = {}
        self._addresses: Iterator[int] = count(0x7F5A_0000_0080, 0x80)
        for name in SIGNATURES:
            setattr(self, name, Function(name, getattr(self, f"_{name}")))

    def _cublasCreate_v2(self, handle: Any) -> int:
        assert isinstance(handle, ctypes.c_void_p), "cublasCreate_v2 writes into a void*"
        handle.value = next(self._addresses)
        self.handles[handle.value] = Handle()
        return SUCCESS

    def _cublasDestroy_v2(self, handle: int) -> int:
        return SUCCESS if self.handles.pop(handle, None) else NOT_INITIALIZED

    def _cublasSetStream_v2(self, handle: int, stream: int) -> int:
        if handle not in self.handles:
            return NOT_INITIALIZED
        assert is_stream(stream), f"{stream:#x} is no stream"
        self.handles[handle] = Handle(stream)  # and the workspace is cuBLAS's own again
        return SUCCESS

    def _cublasSetWorkspace_v2(self, handle: int, address: int, size: int) -> int:
        if handle not in self.handles:
            return NOT_INITIALIZED
        memory = at(address)
        if (address - memory.first) % 256:  # CuPy's own memory begins at multiples of 512
            return INVALID_VALUE
        memory.array(address, np.uint8, (size,), (1,))
        self.handles[handle].workspace = weakref.ref(memory)
        return SUCCESS

    def _cublasGemmEx(self, *args: Any) -> int:
        *head, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algo = args
        operands = [Operand(a, a_type, lda, 0), Operand(b, b_type, ldb, 0)]
        c = Operand(c, c_type, ldc, 0)
        return self._gemm("cublasGemmEx", *head, alpha, *operands, beta, c, 1, compute, algo)

    def _cublasGemmStridedBatchedEx(self, *args: Any) -> int:
        head, alpha, a, b = args[:6], args[6], Operand(*args[7:11]), Operand(*args[11:15])
        beta, c, rest = args[15], Operand(*args[16:20]), args[20:]
        return self._gemm("cublasGemmStridedBatchedEx", *head, alpha, a, b, beta, c, *rest)

    def _gemm(
        self,
        name: str,
        handle: int,
        ta: int,
        tb: int,
        m: int,
        n: int,
        k: int,
        alpha: Any,
        a: Operand,
        b: Operand,
        beta: Any,
        c: Operand,
        batch: int,
        compute: int,
        algorithm: int,
    ) -> int:
        """C = alpha op(A) op(B) + beta C, for (m, k), (k, n) and (m, n)."""
        if handle not in self.handles:
            return NOT_INITIALIZED
        workspace = _ready(self.handles[handle])
        if ta not in (0, 1) or tb not in (0, 1) or algorithm != DEFAULT_ALGORITHM:
            return INVALID_VALUE
        a_shape, b_shape = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
        shapes = (a_shape, b_shape, (m, n))
        if min(m, n, k, batch) < 0:
            return INVALID_VALUE
        if any(x.ld < max(1, rows) for x, (rows, _) in zip((a, b, c), shapes, strict=True)):
            return INVALID_VALUE
        if any(compute not in COMPUTE or x.type != COMPUTE[compute][0] for x in (a, b, c)):
            return NOT_SUPPORTED
        _, dtype, scalar = COMPUTE[compute]
        alpha, beta = _number(alpha, scalar), _number(beta, scalar)
        if 0 in (m, n, batch):
            return SUCCESS
        x, y, out = (
            operand.matrices(dtype, batch, *shape)
            for operand, shape in zip((a, b, c), shapes, strict=True)
        )
        assert not any(np.shares_memory(out, given) for given in (x, y)), "C lies in A or B"
        assert batch == 1 or _apart(c, m, n, batch), "the matrices of C overlap"
        x, y = x.swapaxes(1, 2) if ta else x, y.swapaxes(1, 2) if tb else y

        def work() -> None:
            left, right = (_tf32(x), _tf32(y)) if compute == FAST_TF32 else (x, y)
            product = dtype(alpha) * (left @ right)
            # With beta = 0, C need not hold numbers.
            out[...] = product + dtype(beta) * out if beta else product

        launch(name, work, [workspace, *(at(operand.address) for operand in (a, b, c))])
        return SUCCESS


def _ready(handle: Handle) -> Memory:
    """The workspace; AssertionError for a handle whose products would go astray."""
    assert handle.stream == current.stream.ptr, "the product would not run on the current stream"
    workspace = handle.workspace()
    assert workspace is not None, "no workspace since the stream was set, or it has been freed"
    return workspace


def _apart(c: Operand, m: int, n: int, batch: int) -> bool:
    """Whether the matrices lie one after the other, or side by side within a column."""
    if c.stride >= c.ld * (n - 1) + m:
        return True
    return c.stride >= m and c.ld >= c.stride * (batch - 1) + m


def _number(reference: Any, scalar: Any) -> float:
    """alpha or beta, read now, also during a capture."""
    assert isinstance(reference, scalar), f"a reference to {scalar.__name__}, not {reference!r}"
    return reference.value


def _tf32(x: np.ndarray) -> np.ndarray:
    """float32 with ten bits of mantissa, rounded to nearest."""
    bits = x.view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def library() -> Library:
    """For tinygan.backend.cublas.load."""
    return Library()
