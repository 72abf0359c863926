"""The device's memory: NumPy's, with an owner who lets go of it, and pools."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from standin.capture import CUDARuntimeError, current


class Memory:
    """One allocation. All arrays that lie in it hold it; when the last one goes, it is free."""

    def __init__(self, host: np.ndarray, pool: MemoryPool | None = None) -> None:
        self.host = host
        self.first, _ = np.lib.array_utils.byte_bounds(host)
        self.pool = None if pool is None else weakref.ref(pool)

    def array(
        self, address: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> np.ndarray:
        """Part of it; ValueError where that reaches beyond its end."""
        assert self.host.dtype in (dtype, np.uint8), f"{self} is taken for {np.dtype(dtype)}"
        flat = self.host.ravel(order="K").view(np.uint8)
        assert np.may_share_memory(flat, self.host) or not flat.size
        return np.ndarray(shape, dtype, flat, address - self.first, strides)

    def __str__(self) -> str:
        return f"{self.host.shape} of {self.host.dtype}"


def allocate(host: np.ndarray) -> Memory:
    """Memory for a new array, from the pool of the moment.

    What is recorded writes there at every replay. Memory of the common pool would by then have
    been given to others.
    """
    assert current.recording is None or current.pool is not None, (
        "a graph would write to memory that others reuse: it needs a pool of its own"
    )
    if current.pool is not None:
        current.pool._ask(host.nbytes)
    return Memory(host, current.pool)


def from_device(size: int) -> Memory:
    """`cuda.Memory`, which asks CUDA itself."""
    return Memory(np.full(size, 255, np.uint8))


class MemoryPointer:
    """`ndarray.data`: an address, and what lies there."""

    def __init__(self, memory: Memory, offset: int) -> None:
        self.mem, self.ptr = memory, memory.first + offset
        _known[self.ptr] = memory


_known: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()


def at(address: int) -> Memory:
    """What lies at an address that `data.ptr` has given."""
    assert address in _known, f"{address:#x} is no device memory, or has been freed"
    return _known[address]


class MemoryPool:
    """A pool of its own: what it gave lives as long as the pool."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator or (lambda size: MemoryPointer(from_device(size), 0))

    def _ask(self, size: int) -> None:
        """Whether there is memory. At CUDA's own error CuPy frees all that has come back, and asks
        again."""
        try:
            self._allocator(size)
        except CUDARuntimeError:
            assert current.recording is None, "the pool would free memory that the graph uses"
            raise

    def malloc(self, size: int) -> MemoryPointer:
        self._ask(size)
        return MemoryPointer(Memory(np.full(size, 255, np.uint8), self), 0)


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer]) -> Iterator[None]:
    """Inside the `with`, new arrays come from the pool whose `malloc` this is."""
    before, pool = current.pool, getattr(allocator, "__self__", None)
    if not isinstance(pool, MemoryPool):
        raise NotImplementedError("the stand-in knows the allocators MemoryPool().malloc")
    current.pool = pool
    try:
        yield
    finally:
        current.pool = before
