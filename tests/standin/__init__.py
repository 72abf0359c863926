"""A strict stand-in for the cupy module, so that CupyBackend's own code runs without a GPU.

It keeps to the part of CuPy that this library uses and is stricter than CuPy:

- its arrays hold NumPy arrays inside, are none, and refuse to mix with them, even where CuPy
  would copy silently (`a[...] = numpy_array`, a NumPy index, a NumPy array given to a kernel);
- every wait for the device and every copy to it is written into `events`;
- `empty` gives memory full of NaN (integers: the largest one);
- while a stream is captured, nothing runs (capture.py); memory has an owner, and a graph may only
  use what somebody keeps (memory.py); products through a handle of one's own go to cublas.py;
- kernels run by name, in NumPy (kernels.py) or as their own source compiled for the CPU
  (compiled.py), after their arguments have been compared with the signature in the source.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import (  # the dtypes, which CuPy passes on too
    bool_,
    dtype,
    float32,
    float64,
    int32,
    int64,
    pi,
    uint8,
    uint32,
    uint64,
)

from standin.capture import counted, events, involve_host, launched
from standin.device import cuda
from standin.device_array import asnumpy, compute, ndarray, poisoned, unwrap
from standin.functions import FUNCTIONS, make
from standin.module import RawModule

__all__ = [
    "RawModule",
    "arange",
    "array",
    "asnumpy",
    "bool_",
    "counted",
    "cuda",
    "dtype",
    "empty",
    "empty_like",
    "events",
    "float32",
    "float64",
    "full",
    "int32",
    "int64",
    "launched",
    "ndarray",
    "pi",
    "uint8",
    "uint32",
    "uint64",
    "zeros",
]

__version__ = "0 (stand-in)"


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Memory that nobody has written yet, and that shows it."""
    return poisoned(np.empty(shape, dtype))


def empty_like(prototype: ndarray) -> ndarray:
    """The same for an array's shape, dtype and order in memory."""
    return poisoned(np.empty_like(unwrap(prototype)))


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return compute("zeros", np.zeros, shape, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    return compute("full", np.full, shape, fill_value, dtype)


def arange(*limits: int, dtype: Any = None) -> ndarray:
    return compute("arange", np.arange, *limits, dtype=dtype)


def array(obj: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    """The one way for a NumPy array onto the device."""
    if isinstance(obj, ndarray):
        return compute("array", np.array, obj, dtype)
    involve_host("copy: array()")
    return ndarray(np.array(obj, dtype))


# Last, since CuPy's any, max, sum, ... hide Python's own from here on.
globals().update({name: make(name) for name in FUNCTIONS})
