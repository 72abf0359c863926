"""The stand-in's array: a NumPy array behind glass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from standin.capture import current, involve_host, launch, refuse, refuse_cublas
from standin.memory import Memory, MemoryPointer, allocate


def unwrap(value: Any) -> Any:
    """What an operation computes with: a device array's memory, or a number as it is."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, (list, tuple)) and any(isinstance(item, ndarray) for item in value):
        return [unwrap(item) for item in value]
    if isinstance(value, np.ndarray) or type(value).__module__.split(".")[0] == "torch":
        raise TypeError(f"Unsupported type {type(value)}")  # CuPy's words
    return value


def _call(function: Callable[..., Any], args: Any, options: dict[str, Any]) -> partial[Any]:
    """The call on the arrays' own memory."""
    named = {name: unwrap(value) for name, value in options.items()}
    return partial(function, *map(unwrap, args), **named)


def _trial(call: partial[Any]) -> Any:
    """Its result's shape and dtype: the same call on zeros."""
    named = {name: _blank(value) for name, value in call.keywords.items()}
    with np.errstate(all="ignore"):  # of 0/0, say, which the real call may not see
        return call.func(*map(_blank, call.args), **named)


def _blank(value: Any) -> Any:
    if isinstance(value, list):
        return [_blank(item) for item in value]
    return np.zeros_like(value) if isinstance(value, np.ndarray) else value


def _memories(*values: Any) -> Iterator[Memory]:
    for value in values:
        if isinstance(value, ndarray):
            yield value._memory
        elif isinstance(value, (list, tuple)):
            yield from _memories(*value)


def compute(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> ndarray:
    """function(...) of NumPy as a new device array; during a capture, one full of poison."""
    call = _call(function, args, options)
    if current.recording is None:
        results: list[Any] = []
        launch(name, lambda: results.append(call()))
        return ndarray(np.asarray(results[0]))
    host = np.asarray(_trial(call))
    result = poisoned(host)
    memories = _memories(result, *args, *options.values())
    launch(name, lambda: host.__setitem__(..., call()), memories)
    return result


def change(
    target: ndarray, name: str, function: Callable[..., Any], *args: Any, **options: Any
) -> ndarray:
    """function(target, ...) of NumPy, which writes into its first argument; returns that."""
    call = _call(function, (target, *args), options)
    if current.recording is not None:
        _trial(call)  # for its errors
    launch(name, call, _memories(target, *args, *options.values()))
    return target


def poisoned(host: np.ndarray) -> ndarray:
    """A device array that nobody has written yet, and that shows it."""
    largest = True if host.dtype.kind == "b" else None
    if host.dtype.kind in "iu":
        largest = np.iinfo(host.dtype).max
    host.fill(np.nan if largest is None else largest)
    return ndarray(host)


def asnumpy(a: Any, **_: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


class ndarray:  # CuPy's name for it
    __slots__ = ("_host", "_memory")
    __array_ufunc__ = None  # NumPy's operators then leave the decision, a TypeError, to ours
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, memory: Memory | None = None) -> None:
        """A new array, or a view of a given one's memory."""
        self._host = host
        self._memory = allocate(host) if memory is None else memory

    # ---- about it ----

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    data = property(
        lambda self: MemoryPointer(self._memory, self._host.ctypes.data - self._memory.first)
    )

    def __len__(self) -> int:
        return len(self._host)

    # ---- what waits for the device ----

    def get(self, **_: Any) -> np.ndarray:
        involve_host("sync: get()")
        if not self._host.flags.c_contiguous:  # CuPy makes it so in a `with` of the current stream
            with current.stream:
                pass
        return self._host.copy()

    def item(self) -> Any:
        involve_host("sync: item()")
        return self._host.item()

    def tolist(self) -> Any:
        involve_host("sync: tolist()")
        return self._host.tolist()

    def __float__(self) -> float:
        involve_host("sync: float()")
        return float(self._host)

    def __int__(self) -> int:
        involve_host("sync: int()")
        return int(self._host)

    def __bool__(self) -> bool:
        involve_host("sync: bool()")
        return bool(self._host)

    def __repr__(self) -> str:
        involve_host("sync: repr()")
        return repr(self._host)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        involve_host("sync: format()")
        return format(self._host, spec)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    # ---- views, made at once ----

    def _view(self, host: np.ndarray) -> ndarray:
        return ndarray(host, self._memory)

    def _reshaped(self, name: str, *args: Any) -> ndarray:
        host = getattr(self._host, name)(*args)
        if np.may_share_memory(host, self._host):
            return self._view(host)
        return compute(name, getattr(np.ndarray, name), self, *args)

    def reshape(self, *shape: Any) -> ndarray:
        return self._reshaped("reshape", *shape)

    def ravel(self) -> ndarray:
        return self._reshaped("ravel")

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._host.transpose(*axes))

    def view(self, dtype: Any = None) -> ndarray:
        return self._view(self._host.view(dtype) if dtype is not None else self._host.view())

    T = property(lambda self: self.transpose())

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    # ---- elements ----

    def __getitem__(self, key: Any) -> ndarray:
        key = _key(key)
        if _index_arrays(key):
            return compute("getitem", _picked, self, *key)
        return self._view(self._host[_plain(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        key = _key(key)
        if _index_arrays(key) and not isinstance(value, ndarray):
            involve_host("copy: a number for an indexed assignment")
        change(self, "setitem", _put, value, *key)

    # ---- copies ----

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        if self.dtype == dtype and not copy:
            return self
        return compute("astype", np.ndarray.astype, self, dtype)

    def copy(self) -> ndarray:
        return compute("copy", np.ndarray.copy, self)

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def fill(self, value: Any) -> None:
        change(self, "fill", np.ndarray.fill, value)

    def clip(self, low: Any, high: Any) -> ndarray:
        return compute("clip", np.ndarray.clip, self, low, high)

    def argsort(self, axis: int = -1, kind: Any = None) -> ndarray:
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        refuse()  # Thrust, which sorts, waits for the stream
        return compute("argsort", np.ndarray.argsort, self, axis=axis, kind="stable")

    def __matmul__(self, other: Any) -> ndarray:
        refuse_cublas()
        return compute("matmul", operator.matmul, self, other)


ARITHMETIC = "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift"
COMPARISONS = "lt le gt ge eq ne"


def _key(key: Any) -> tuple[Any, ...]:
    """An index whose result is always an array."""
    parts = key if isinstance(key, tuple) else (key,)
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def _plain(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(unwrap(part) for part in key)


def _index_arrays(key: tuple[Any, ...]) -> bool:
    """Whether arrays are in it: then the result is a copy."""
    if any(isinstance(part, ndarray) and part.dtype == bool for part in key):
        involve_host("sync: boolean index")  # the size of the result is known to the device
    if any(isinstance(part, list) for part in key):
        involve_host("copy: a list as an index")
    return any(isinstance(part, (ndarray, list)) for part in key)


def _picked(host: np.ndarray, *key: Any) -> np.ndarray:
    return host[key]


def _put(host: np.ndarray, value: Any, *key: Any) -> None:
    host[key] = value


def _operator(name: str) -> None:
    """x + y, y + x and x += y, and likewise for each of Python's operators."""
    function = getattr(operator, name)
    dunder = name.strip("_")

    def update(host: np.ndarray, other: Any) -> None:
        host[...] = _cast(function(host, other), host.dtype)

    def forward(self: ndarray, other: Any) -> ndarray:
        return compute(dunder, function, self, other)

    def reflected(self: ndarray, other: Any) -> ndarray:
        return compute(dunder, function, other, self)

    def in_place(self: ndarray, other: Any) -> ndarray:
        return change(self, f"i{dunder}", update, other)

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
    setattr(ndarray, f"__{name}__", lambda self: compute(name, function, self))


def into(out: Any, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> ndarray:
    """function(..., out=out) of NumPy, or, without an out, its result."""
    if out is None:
        return compute(name, function, *args, **options)
    if not isinstance(out, ndarray):
        raise TypeError(f"Unsupported type {type(out)} for out of {name}")

    def write(host: np.ndarray, *args: Any, **options: Any) -> None:
        function(*args, out=host, **options)

    return change(out, name, write, *args, **options)


def _reduction(name: str) -> None:
    method = getattr(np.ndarray, name)

    def reduce(
        self: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False, **options: Any
    ) -> ndarray:
        return into(out, name, method, self, axis=axis, keepdims=keepdims, **options)

    setattr(ndarray, name, reduce)


for _name in f"{ARITHMETIC} {COMPARISONS}".split():
    _operator(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name)
for _name in ("sum", "mean", "max", "min", "argmax", "all", "any", "var"):
    _reduction(_name)
