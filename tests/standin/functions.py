"""CuPy's array functions, made from NumPy's: same names, device arrays in and out."""

from __future__ import annotations

from typing import Any

import numpy as np

from standin.capture import involve_host, refuse, refuse_cublas
from standin.device_array import change, into, ndarray, unwrap

UFUNCS = (
    "abs add divide equal exp greater isfinite isnan less log log1p logical_and logical_not "
    "logical_or logical_xor maximum minimum multiply negative power reciprocal sign signbit "
    "sqrt subtract tanh cos sin square expm1"
)
REDUCTIONS = "all any argmax max mean min sum var"
OTHERS = (
    "argsort array_equal broadcast_to clip concatenate copyto expand_dims matmul ones_like "
    "stack take transpose where zeros_like"
)
FUNCTIONS = f"{UFUNCS} {REDUCTIONS} {OTHERS}".split()


VIEWS = ("broadcast_to", "expand_dims", "transpose")
ONE_KERNEL = 8  # so many arrays at most are joined without a list of them being copied


def make(name: str) -> Any:
    of_numpy = getattr(np, name)

    def function(*args: Any, out: Any = None, **options: Any) -> Any:
        _refuse(name, args, out)
        if name in VIEWS:
            host = of_numpy(unwrap(args[0]), *args[1:], **options)
            return ndarray(host, args[0]._memory)
        if name == "copyto":
            return change(args[0], name, of_numpy, *args[1:], **options)
        return into(out, name, of_numpy, *args, **options)

    function.__name__ = name
    return function


def _refuse(name: str, args: tuple[Any, ...], out: Any) -> None:
    """What CuPy cannot do, or not while a stream is captured."""
    if name == "matmul":
        refuse_cublas()
        if out is not None and any(_overlap(a, out) for a in args):
            raise ValueError("out of matmul overlaps one of its inputs")
    if name == "argsort":
        refuse()
    if name == "where" and len(args) == 1:
        raise NotImplementedError("the stand-in's where takes three arguments")
    if name in ("concatenate", "stack") and len(args[0]) > ONE_KERNEL:
        involve_host(f"copy: {name} of more than {ONE_KERNEL} arrays")


def _overlap(a: Any, b: Any) -> bool:
    both = isinstance(a, ndarray) and isinstance(b, ndarray)
    return both and np.may_share_memory(a._host, b._host)
