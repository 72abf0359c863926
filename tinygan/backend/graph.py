"""A step of training as one CUDA graph: recorded once, then replayed. See docs/gpu.md."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tinygan.errors import CaptureWarning, first_line

if TYPE_CHECKING:
    from tinygan.backend.cupy_backend import CupyBackend

WARM_UPS = 2  # calls before the recording: they compile kernels and lay every buffer
SLOTS = 256  # numbers that one step may ask for


class CapturedStep:
    """Calling it makes the step: the first two times as Python has it, then as a CUDA graph.

    A launch of the graph costs the CPU as much as that of a few kernels, and a small network's step
    has hundreds: [gpu.1]. Where CUDA refuses to record the step, one CaptureWarning says why, and
    the step is made as before. Bits do not depend on which way a step is made.
    """

    def __init__(self, backend: CupyBackend, step: Callable[[], object]) -> None:
        self._backend, self._step = backend, step
        self._calls = 0
        self._graph: Any = None
        self._result: Any = None
        self._refused = False
        self._reads: list[Callable[[], Sequence[float]]] = []
        self._slots = backend.empty((SLOTS,), "float64")
        self._used = 0
        # Memory that the step asks for while it is recorded is the graph's: taken from the common
        # pool, it would go back there when Python lets go of it, and others would use it.
        cuda = backend.xp.cuda
        self._pool = cuda.MemoryPool(partial(_from_device, cuda))

    def __call__(self) -> Any:
        """What the step returns: from a replay, the same object each time."""
        self._calls += 1
        self._backend.stream.use()  # each thread has a current stream of its own
        if self._graph is None and not self._refused and self._calls > WARM_UPS:
            self._record()
        if self._graph is None:
            return self._step()
        self._replay()
        return self._result

    def slot(self, count: int, read: Callable[[], Sequence[float]]) -> Any:
        """Where kernels will find what `read` gives before each replay: [gpu.2]."""
        at = self._used
        if at + count > SLOTS:
            raise RuntimeError(f"a step has more than {SLOTS} numbers")
        self._reads.append(read)
        self._used += count
        return self._slots[at : at + count]

    def _record(self) -> None:
        """Nothing of the step happens here: CUDA only writes down what would."""
        backend, cuda = self._backend, self._backend.xp.cuda
        backend.recording = self
        try:
            with cuda.using_allocator(self._pool.malloc):
                self._graph, self._result = _recorded(backend.stream, self._step)
        except Exception as problem:  # of CUDA, CuPy or cuBLAS, each with errors of its own
            self._refused = True
            warnings.warn(
                f"this step runs without a CUDA graph, more slowly ({first_line(problem)})",
                CaptureWarning,
                stacklevel=3,
            )
        finally:
            backend.recording = None

    def _replay(self) -> None:
        numbers = [number for read in self._reads for number in read()]
        self._backend.set_numbers(self._slots, numbers)
        self._graph.launch(self._backend.stream)


def _from_device(cuda: Any, size: int) -> Any:
    """New memory for a pool. Where there is none, MemoryError ends the recording: at CUDA's own
    error a pool would free what it has had back, which the graph goes on using."""
    try:
        return cuda.MemoryPointer(cuda.Memory(size), 0)
    except cuda.runtime.CUDARuntimeError as problem:
        raise MemoryError(first_line(problem)) from problem


def _recorded(stream: Any, step: Callable[[], object]) -> tuple[Any, object]:
    """The graph of what `step` does on `stream`, and what it returned."""
    stream.begin_capture()
    try:
        result = step()
    except BaseException:  # whatever it was, the stream must leave capture mode
        with contextlib.suppress(RuntimeError):  # CUDA's word that the recording is spoilt
            stream.end_capture()
        raise
    return stream.end_capture(), result
