"""Streams and CUDA graphs: while a stream is captured nothing happens, it is written down.

A launch of the graph then does it all, in order, on the memory that was there when it was written
down. CuPy refuses some of what waits for the device before CUDA sees it, which leaves a capture
whole; here all of it spoils the capture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from standin.memory import Memory, MemoryPool

Work = Callable[[], object]

events: list[str] = []  # every wait for the device and every copy to it, since the process began


class CUDARuntimeError(RuntimeError):
    """What CUDA itself says."""


ERRORS = {
    "Unsupported": "operation not permitted when stream is capturing",
    "Invalidated": "operation failed due to a previous error during capture",
}


class Current:
    """What holds just now for everything that is done."""

    def __init__(self) -> None:
        self.stream = NULL
        self.entered = [NULL]  # by `with`; one that is only in `use` is not among them
        self.recording: Recording | None = None
        self.pool: MemoryPool | None = None  # None: the one that everybody uses
        self.launches: list[str] | None = None  # a list: somebody wants to know


def reset() -> None:
    """As in a new process: no capture, the null stream, the common pool."""
    vars(current).update(vars(Current()))


@contextmanager
def counted() -> Iterator[list[str]]:
    """The waits and copies that happen inside the `with` (filled in when it ends)."""
    start, seen = len(events), []
    yield seen
    seen += events[start:]


@contextmanager
def launched() -> Iterator[list[str]]:
    """What is launched inside the `with`, by name; a graph, however large, is one "graph"."""
    current.launches = seen = []
    try:
        yield seen
    finally:
        current.launches = None


def launch(name: str, work: Work, memories: Iterable[Memory] = ()) -> None:
    """Do it, or, while a stream is captured, write it down."""
    if current.recording is not None:
        current.recording.add(name, work, memories)
        return
    if current.launches is not None:
        current.launches.append(name)
    with np.errstate(all="ignore"):
        work()


def refuse() -> None:
    """For what CUDA does not do while a stream is captured."""
    if current.recording is not None:
        current.recording.spoilt = True
        raise _error("Unsupported")


def involve_host(event: str) -> None:
    """For what waits for the device, or copies to it: note it, or refuse it."""
    refuse()
    events.append(event)


def refuse_cublas() -> None:
    """For CuPy's own products. CUDA sees nothing of it, and the capture stays whole."""
    if current.recording is not None:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )


def _error(kind: str) -> CUDARuntimeError:
    return CUDARuntimeError(f"cudaErrorStreamCapture{kind}: {ERRORS[kind]}")


class Recording:
    """What has been asked of a stream since its capture began.

    Of arrays it keeps the NumPy memory (nothing crashes) and no more: whether they still live is
    for others to see to, as on a device.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.spoilt = stream, False
        self.work: list[Work] = []
        self.memories: dict[weakref.ref[Memory], tuple[str, Any]] = {}

    def add(self, name: str, work: Work, memories: Iterable[Memory]) -> None:
        if self.spoilt:
            raise _error("Invalidated")
        self.work.append(work)
        for memory in memories:
            about = f"{memory}, for {name}", memory.pool
            self.memories.setdefault(weakref.ref(memory), about)

    def freed(self) -> list[str]:
        """The memory that neither its owner holds any more nor a pool of its own."""
        gone = (about for memory, about in self.memories.items() if memory() is None)
        return [what for what, pool in gone if pool is None or pool() is None]


class Graph:
    """What `Stream.end_capture` returns."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def launch(self, stream: Stream | None = None) -> None:
        refuse()
        assert stream in (None, current.stream), "the graph would overtake the current stream"
        freed = self._recording.freed()
        assert not freed, f"the graph uses memory that has been freed: {'; '.join(freed)}"
        launch("graph", self._replay)

    def _replay(self) -> None:
        for work in self._recording.work:
            work()


class Stream:
    """`ptr` is large, as pointers are: passed in 32 bits, it would not arrive."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0 if null else next(_addresses)
        self.is_non_blocking = non_blocking
        _streams[self.ptr] = self

    def use(self) -> Stream:
        assert current.recording is None, "another stream would be used during a capture"
        current.stream = self
        return self

    def __enter__(self) -> Stream:
        current.entered.append(self.use())
        return self

    def __exit__(self, *_: object) -> None:
        current.entered.pop()
        current.entered[-1].use()

    def synchronize(self) -> None:
        involve_host("sync: Stream.synchronize()")

    def is_capturing(self) -> bool:
        return current.recording is not None and current.recording.stream is self

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if current.recording is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: a stream is being captured already")
        assert self.is_non_blocking, "a capture would be spoilt by anything on the null stream"
        assert current.stream is self, "nothing would be captured: another stream is current"
        current.recording = Recording(self)

    def end_capture(self) -> Graph:
        recording = current.recording
        if recording is None or recording.stream is not self:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not being captured")
        current.recording = None
        if recording.spoilt:
            raise _error("Invalidated")
        return Graph(recording)


def get_current_stream() -> Stream:
    return current.stream


def is_stream(address: int) -> bool:
    """Whether a stream's `ptr` is that, and the stream still lives."""
    return address in _streams


_addresses = count(0x7F3C_0000_0040, 0x40)
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
NULL = Stream.null = Stream(null=True)
current = Current()
