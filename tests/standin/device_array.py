"""The stand-in's array: a NumPy array behind glass."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

events: list[str] = []  # every wait for the device and every copy to it, since the process began


@contextmanager
def counted() -> Iterator[list[str]]:
    """The waits and copies that happen inside the `with` (filled in when it ends)."""
    start, seen = len(events), []
    yield seen
    seen += events[start:]


def unwrap(value: Any) -> Any:
    """What an operation computes with: a device array's memory, or a number as it is."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, (list, tuple)) and any(isinstance(item, ndarray) for item in value):
        return [unwrap(item) for item in value]
    if isinstance(value, np.ndarray) or type(value).__module__.split(".")[0] == "torch":
        raise TypeError(f"Unsupported type {type(value)}")  # CuPy's words
    return value


def wrap(result: Any) -> ndarray:
    return ndarray(np.asarray(result))


def asnumpy(a: Any, **_: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


class ndarray:  # CuPy's name for it
    __slots__ = ("_host",)
    __array_ufunc__ = None  # NumPy's operators then leave the decision, a TypeError, to ours
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # ---- about it ----

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)

    def __len__(self) -> int:
        return len(self._host)

    # ---- what waits for the device ----

    def get(self, **_: Any) -> np.ndarray:
        events.append("sync: get()")
        return self._host.copy()

    def item(self) -> Any:
        events.append("sync: item()")
        return self._host.item()

    def tolist(self) -> Any:
        events.append("sync: tolist()")
        return self._host.tolist()

    def __float__(self) -> float:
        events.append("sync: float()")
        return float(self._host)

    def __int__(self) -> int:
        events.append("sync: int()")
        return int(self._host)

    def __bool__(self) -> bool:
        events.append("sync: bool()")
        return bool(self._host)

    def __repr__(self) -> str:
        events.append("sync: repr()")
        return repr(self._host)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        events.append("sync: format()")
        return format(self._host, spec)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    # ---- views and elements ----

    def __getitem__(self, key: Any) -> ndarray:
        key = _key(key)
        if any(isinstance(k, np.ndarray) and k.dtype == bool for k in key):
            events.append("sync: boolean index")  # the size of the result is known to the device
        return ndarray(self._host[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        with np.errstate(all="ignore"):
            self._host[_key(key)] = unwrap(value)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    T = property(lambda self: ndarray(self._host.T))

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self._host.reshape(*shape))

    def ravel(self) -> ndarray:
        return ndarray(self._host.ravel())

    def transpose(self, *axes: Any) -> ndarray:
        return ndarray(self._host.transpose(*axes))

    def view(self, dtype: Any = None) -> ndarray:
        return ndarray(self._host.view(dtype) if dtype is not None else self._host.view())

    # ---- copies ----

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        with np.errstate(all="ignore"):
            return ndarray(self._host.astype(dtype, copy=copy))

    def copy(self) -> ndarray:
        return ndarray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def fill(self, value: Any) -> None:
        self._host.fill(unwrap(value))

    def clip(self, low: Any, high: Any) -> ndarray:
        return wrap(self._host.clip(unwrap(low), unwrap(high)))

    def argsort(self, axis: int = -1, kind: Any = None) -> ndarray:
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        return ndarray(self._host.argsort(axis=axis, kind="stable"))

    def __matmul__(self, other: Any) -> ndarray:
        return wrap(self._host @ unwrap(other))


ARITHMETIC = "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift"
COMPARISONS = "lt le gt ge eq ne"


def _key(key: Any) -> tuple[Any, ...]:
    """An index whose result is always an array, and one of device arrays, if of any."""
    parts = key if isinstance(key, tuple) else (key,)
    parts = tuple(unwrap(part) for part in parts)
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def _operator(name: str) -> None:
    """x + y, y + x and x += y, and likewise for each of Python's operators."""
    function = getattr(operator, name)
    dunder = name.strip("_")

    def forward(self: ndarray, other: Any) -> ndarray:
        with np.errstate(all="ignore"):
            return wrap(function(self._host, unwrap(other)))

    def reflected(self: ndarray, other: Any) -> ndarray:
        with np.errstate(all="ignore"):
            return wrap(function(unwrap(other), self._host))

    def in_place(self: ndarray, other: Any) -> ndarray:
        with np.errstate(all="ignore"):
            self._host[...] = _cast(function(self._host, unwrap(other)), self._host.dtype)
        return self

    setattr(ndarray, f"__{dunder}__", forward)
    if name not in COMPARISONS.split():
        setattr(ndarray, f"__r{dunder}__", reflected)
        setattr(ndarray, f"__i{dunder}__", in_place)


def _cast(value: Any, dtype: np.dtype[Any]) -> Any:
    if not np.can_cast(value.dtype, dtype, "same_kind"):
        raise TypeError(f"cannot cast from {value.dtype} to {dtype} in place")
    return value


def _unary(name: str) -> None:
    function = getattr(operator, name)
    setattr(ndarray, f"__{name}__", lambda self: wrap(function(self._host)))


def _reduction(name: str) -> None:
    def reduce(
        self: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False, **options: Any
    ) -> ndarray:
        if out is not None and not isinstance(out, ndarray):
            raise TypeError(f"Unsupported type {type(out)} for out of {name}")
        host = None if out is None else out._host
        method = getattr(self._host, name)
        result = method(axis=axis, out=host, keepdims=keepdims, **options)
        return wrap(result) if out is None else out

    setattr(ndarray, name, reduce)


for _name in f"{ARITHMETIC} {COMPARISONS}".split():
    _operator(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name)
for _name in ("sum", "mean", "max", "min", "argmax", "all", "any", "var"):
    _reduction(_name)
