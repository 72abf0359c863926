"""CuPy's array functions, made from NumPy's: same names, device arrays in and out."""

from __future__ import annotations

from typing import Any

import numpy as np

from standin.device_array import ndarray, unwrap, wrap

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


def make(name: str) -> Any:
    of_numpy = getattr(np, name)

    def function(*args: Any, out: Any = None, **options: Any) -> Any:
        host = [unwrap(a) for a in args]
        options = {key: unwrap(value) for key, value in options.items()}
        if out is not None:
            if not isinstance(out, ndarray):
                raise TypeError(f"Unsupported type {type(out)} for out of {name}")
            if name == "matmul" and any(
                isinstance(a, np.ndarray) and np.may_share_memory(a, out._host) for a in host
            ):
                raise ValueError("out of matmul overlaps one of its inputs")
            options["out"] = out._host
        with np.errstate(all="ignore"):
            result = of_numpy(*host, **options)
        return wrap(result) if out is None else out

    function.__name__ = name
    return function
