"""The stand-in itself: captured streams, memory with an owner, and its cuBLAS.

What would only go wrong on a device must go wrong here: each refusal has a test, and beside it the
case that is in order.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from standin import capture, compiled, memory
from standin.capture import CUDARuntimeError
from standin.cublas import INVALID_VALUE, NOT_INITIALIZED, NOT_SUPPORTED, library
from standin.module import RawModule

cuda = standin.cuda
Record = Callable[..., Any]
needs_compiler = pytest.mark.skipif(compiled.compiler() is None, reason="no C++ compiler on Linux")


@pytest.fixture
def stream() -> Iterator[Any]:
    """A stream that is current and may be captured."""
    capture.reset()
    yield cuda.Stream(non_blocking=True).__enter__()
    capture.reset()


@pytest.fixture
def record(stream: Any) -> Record:
    """A function step -> (its graph, what it returned while it was recorded)."""
    pool = cuda.MemoryPool()

    def make(step: Callable[[], Any]) -> tuple[Any, Any]:
        stream.begin_capture()
        with cuda.using_allocator(pool.malloc):
            result = step()
        return stream.end_capture(), result

    return make


def device(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return standin.array(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def matrices() -> tuple[Any, Any, Any]:
    """(3, 4) twice, and indices of rows."""
    return device(3, 4), device(3, 4, seed=1), standin.array(np.array([2, 0]))


def poisoned(x: Any) -> bool:
    host = x.get()
    worst = np.nan if host.dtype.kind == "f" else True
    if host.dtype.kind in "iu":
        worst = np.iinfo(host.dtype).max
    return np.array_equal(host, np.full_like(host, worst), equal_nan=host.dtype.kind == "f")


# ---- what happens while a stream is captured: nothing --------------------------------------------

NEW: dict[str, Callable[..., Any]] = {
    "x + y": lambda x, y, i: x + y,
    "2 - x": lambda x, y, i: 2.0 - x,
    "-x": lambda x, y, i: -x,
    "x < y": lambda x, y, i: x < y,
    "x / y": lambda x, y, i: x / y,
    "log": lambda x, y, i: standin.log(x * x),
    "x[i]": lambda x, y, i: x[i],
    "x[i[0]]": lambda x, y, i: x[i[0]],
    "x.sum": lambda x, y, i: x.sum(axis=0),
    "x.mean": lambda x, y, i: x.mean(),
    "x.argmax": lambda x, y, i: x.argmax(axis=1),
    "x.astype": lambda x, y, i: x.astype("float64"),
    "x.copy": lambda x, y, i: x.copy(),
    "deepcopy": lambda x, y, i: copy.deepcopy(x),
    "x.clip": lambda x, y, i: x.clip(-0.5, 0.5),
    "x.T.reshape": lambda x, y, i: x.T.reshape(-1),
    "x.T.ravel": lambda x, y, i: x.T.ravel(),
    "exp": lambda x, y, i: standin.exp(x),
    "max": lambda x, y, i: standin.max(x, axis=1, keepdims=True),
    "where": lambda x, y, i: standin.where(x > y, x, 0.0),
    "concatenate": lambda x, y, i: standin.concatenate([x, y], axis=1),
    "take": lambda x, y, i: standin.take(x, i, axis=1),
    "array_equal": lambda x, y, i: standin.array_equal(x, y),
    "array": lambda x, y, i: standin.array(x),
    "ones_like": lambda x, y, i: standin.ones_like(x),
    "zeros": lambda x, y, i: standin.zeros((2, 3), "float32"),
    "full": lambda x, y, i: standin.full((2,), x[0, 0]),
    "arange": lambda x, y, i: standin.arange(5),
}


@pytest.mark.parametrize("name", NEW)
def test_a_new_array_is_made_by_the_replay(record: Record, name: str) -> None:
    arrays = matrices()
    before = [a.get() for a in arrays]
    graph, result = record(lambda: NEW[name](*arrays))
    assert poisoned(result)
    for replay in range(2):
        graph.launch()
        expected = NEW[name](*arrays)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result.get(), expected.get())
        if replay == 0:
            for a, was in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(a.get(), was)
            arrays[0][...] = device(3, 4, seed=7)  # what comes next is computed from this


def set_item(x: Any, key: Any, value: Any) -> None:
    x[key] = value


CHANGES: dict[str, Callable[..., Any]] = {
    "x += y": lambda x, y, i: x.__iadd__(y),
    "x *= x": lambda x, y, i: x.__imul__(x),
    "x[...] = y": lambda x, y, i: set_item(x, ..., x * y),
    "x[:, 0] = 3": lambda x, y, i: set_item(x, (slice(None), 0), 3.0),
    "x[i] = y": lambda x, y, i: set_item(x, i, y[:2]),
    "x.T += 1": lambda x, y, i: x.T.__iadd__(1.0),
    "x.fill": lambda x, y, i: x.fill(2.0),
    "out of exp": lambda x, y, i: standin.exp(x, out=x),
    "out of sum": lambda x, y, i: standin.sum(y, axis=0, out=x[1]),
    "out of x.max": lambda x, y, i: y.max(axis=0, out=x[1]),
    "copyto": lambda x, y, i: standin.copyto(x, y, where=x > 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_by_the_replay(record: Record, name: str) -> None:
    x, y, i = matrices()
    twin, before = x.copy(), x.get()
    graph, _ = record(lambda: CHANGES[name](x, y, i))
    np.testing.assert_array_equal(x.get(), before)
    for _ in range(3):  # each replay goes on from where the last one ended
        graph.launch()
        CHANGES[name](twin, y, i)
        np.testing.assert_array_equal(x.get(), twin.get())


def test_work_is_done_in_its_order(record: Record) -> None:
    x = standin.zeros((2,))

    def step() -> Any:
        x.fill(1.0)
        y = x + x
        x.__imul__(y)
        return y * x

    graph, result = record(step)
    graph.launch()
    assert (x.tolist(), result.tolist()) == ([2.0, 2.0], [4.0, 4.0])


VIEWS: dict[str, Callable[..., Any]] = {
    "x[1:]": lambda x: x[1:],
    "x[..., None]": lambda x: x[..., None],
    "x[0]": lambda x: next(iter(x)),
    "x.T": lambda x: x.T,
    "x.transpose": lambda x: x.transpose(1, 0),
    "x.reshape": lambda x: x.reshape(4, 3),
    "x.ravel": lambda x: x.ravel(),
    "x.view": lambda x: x.view("uint32").view("float32"),
    "x.astype": lambda x: x.astype("float32", copy=False),
    "transpose": lambda x: standin.transpose(x),
    "expand_dims": lambda x: standin.expand_dims(x, 0),
    "broadcast_to": lambda x: standin.broadcast_to(x, (2, 3, 4)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_made_at_once(stream: Any, name: str) -> None:
    """Without memory from any pool."""
    x = device(3, 4)
    stream.begin_capture()
    view = VIEWS[name](x)
    graph = stream.end_capture()
    np.testing.assert_array_equal(view.get(), VIEWS[name](x).get())
    x.fill(5.0)
    assert (view.get() == 5.0).all()
    graph.launch()  # which does nothing
    assert (view.get() == 5.0).all()


def test_fresh_memory_shows_that_nobody_wrote_it(record: Record) -> None:
    graph, (x, y) = record(
        lambda: (standin.empty((2,), "int64"), standin.empty_like(standin.empty((3,))) + 1.0)
    )
    graph.launch()
    assert poisoned(x)
    assert poisoned(y)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda x: x + x.T, ValueError),
        (lambda x: standin.exp(x, out=x.T), ValueError),
        (lambda x: standin.arange(3).__iadd__(0.5), TypeError),
    ],
)
def test_shapes_and_types_are_checked_while_it_is_written_down(
    record: Record, stream: Any, wrong: Callable[..., Any], error: type[Exception]
) -> None:
    x = device(3, 4)
    with pytest.raises(error, match=r"broadcast|cannot cast"):
        record(lambda: wrong(x))
    stream.end_capture()  # CUDA has seen nothing of it


def test_a_number_keeps_the_value_of_its_time(record: Record) -> None:
    """Which is why a rate that changes has to lie on the device."""
    rate, slot = [0.5], standin.zeros((1,))
    slot.fill(0.5)
    x, y = standin.zeros((2,)), standin.zeros((2,))

    def step() -> None:
        x.__iadd__(rate[0])
        y.__iadd__(slot)

    graph, _ = record(step)
    rate[0] = 2.0
    slot.fill(2.0)
    graph.launch()
    assert (x.tolist(), y.tolist()) == ([0.5, 0.5], [2.0, 2.0])


CODE = """
extern "C" __global__ void scale(const REAL* x, double by, REAL* out, long long n)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] * (REAL)by;
}
"""


def scale(grid: int, block: int, x: Any, by: float, out: Any, n: int) -> None:
    out[:n] = x[:n] * x.dtype.type(by)


@pytest.mark.parametrize("how", ["emulated", pytest.param("compiled", marks=needs_compiler)])
def test_a_kernel_is_run_by_the_replay(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    engine = {"scale": scale}
    if how == "compiled":
        engine = compiled.engine(CODE, "float", 64, tmp_path)
    monkeypatch.setattr(RawModule, "engine", engine)
    kernel = RawModule(code=CODE, options=("-DREAL=float", "-DBLOCK=64")).get_function("scale")
    x, by = device(3, 4), [2.0]
    out = standin.empty((3, 4), "float32")
    graph, _ = record(lambda: kernel((1,), (64,), (x, by[0], out, 12)))
    assert poisoned(out)
    by[0] = 5.0
    x.fill(3.0)
    graph.launch()
    assert (out.get() == 6.0).all()  # the x of now, the number of then


# ---- what cannot be captured ---------------------------------------------------------------------

REFUSED: dict[str, Callable[..., Any]] = {
    "get": lambda x, i: x.get(),
    "item": lambda x, i: x[0, 0].item(),
    "tolist": lambda x, i: x.tolist(),
    "float": lambda x, i: float(x[0, 0]),
    "int": lambda x, i: int(x[0, 0]),
    "bool": lambda x, i: bool(x[0, 0]),
    "if": lambda x, i: 1 if x.sum() > 0 else 2,
    "repr": lambda x, i: repr(x),
    "format": lambda x, i: f"{x.mean():.2f}",
    "asnumpy": lambda x, i: standin.asnumpy(x),
    "array": lambda x, i: standin.array(np.zeros(3)),
    "x[mask]": lambda x, i: x[x > 0],
    "x[mask] = 0": lambda x, i: set_item(x, x > 0, x[0, 0]),
    "x[list]": lambda x, i: x[[0, 1]],
    "x[i] = 3": lambda x, i: set_item(x, i, 3.0),
    "argsort": lambda x, i: standin.argsort(x, axis=1),
    "x.argsort": lambda x, i: x.argsort(),
    "many": lambda x, i: standin.concatenate([x] * 9),
    "Device": lambda x, i: cuda.Device().synchronize(),
    "Stream": lambda x, i: cuda.get_current_stream().synchronize(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_waits_or_copies_cannot_be_captured(record: Record, stream: Any, name: str) -> None:
    x, _, i = matrices()
    with (
        standin.counted() as events,
        pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"),
    ):
        record(lambda: REFUSED[name](x, i))
    assert events == []
    with pytest.raises(CUDARuntimeError, match="StreamCaptureInvalidated"):
        x += 1.0
    with pytest.raises(CUDARuntimeError, match="StreamCaptureInvalidated"):
        stream.end_capture()
    REFUSED[name](x, i)  # out of the capture, all is as before


@pytest.mark.parametrize(
    "multiply", [lambda x: x @ x, lambda x: standin.matmul(x, x, out=x.copy())]
)
def test_cupys_own_products_cannot_be_captured(
    record: Record, stream: Any, multiply: Callable[..., Any]
) -> None:
    x = device(3, 3)
    with pytest.raises(NotImplementedError, match="calling cuBLAS API during stream capture"):
        record(lambda: multiply(x))
    stream.end_capture()
    multiply(x)


def test_no_graph_starts_within_another(record: Record) -> None:
    x = device(2)
    graph, _ = record(lambda: x.fill(1.0))
    with pytest.raises(CUDARuntimeError, match="StreamCaptureUnsupported"):
        record(graph.launch)


def test_a_graph_runs_on_the_current_stream(record: Record, stream: Any) -> None:
    x = standin.zeros((2,))
    graph, _ = record(lambda: x.__iadd__(1.0))
    graph.launch(stream)
    graph.launch()
    with pytest.raises(AssertionError, match="overtake"):
        graph.launch(cuda.Stream(non_blocking=True))
    assert x.tolist() == [2.0, 2.0]


def test_where_a_capture_begins_and_ends(stream: Any) -> None:
    null, other, blocking = cuda.Stream.null, cuda.Stream(non_blocking=True), cuda.Stream()
    assert (null.ptr, cuda.get_current_stream()) == (0, stream)
    assert 1 << 32 < stream.ptr != other.ptr
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        null.begin_capture()
    with pytest.raises(AssertionError, match="another stream is current"):
        other.begin_capture()
    with pytest.raises(AssertionError, match="null stream"):
        blocking.use().begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    stream.use().begin_capture()
    assert stream.is_capturing()
    assert not other.is_capturing()
    for mistake in (stream.begin_capture, other.end_capture):
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            mistake()
    with pytest.raises(AssertionError, match="another stream"):
        other.use()
    stream.end_capture()
    assert not stream.is_capturing()


def test_a_stream_in_use_is_forgotten(stream: Any) -> None:
    """As in CuPy's own test_mix_use_context; a strided array's way to the host does the same."""
    for forget in (lambda: cuda.Stream().__enter__().__exit__(), device(3, 4).T.get):
        other = cuda.Stream(non_blocking=True).use()
        device(3, 4).get()
        assert cuda.get_current_stream() is other
        forget()
        assert cuda.get_current_stream() is stream


def test_a_wait_for_the_stream_is_counted(stream: Any) -> None:
    with standin.counted() as events:
        stream.synchronize()
        x = standin.zeros((3,))
        x[x > 0] = 1.0
    assert events[:2] == ["sync: Stream.synchronize()", "sync: boolean index"]


def test_launches_are_told(record: Record) -> None:
    x = device(3)
    graph, _ = record(lambda: standin.exp(x + 1.0, out=x))
    with standin.launched() as names:
        graph.launch()
        standin.exp(x + 1.0, out=x)
    x += 1.0
    assert names == ["graph", "add", "exp"]


# ---- memory --------------------------------------------------------------------------------------


def test_a_graph_needs_memory_of_its_own(stream: Any) -> None:
    """From the common pool, what one replay writes would meanwhile belong to others."""
    x = device(3)
    stream.begin_capture()
    x += 1.0
    with pytest.raises(AssertionError, match="a graph would write to memory that others reuse"):
        x + 1.0


def test_memory_that_a_graph_uses_must_be_kept(record: Record) -> None:
    held, y = {"x": device(3)}, device(3)
    held["view"] = held["x"].reshape(1, 3)[0]
    graph, _ = record(lambda: y.__iadd__(held["x"]))
    del held["x"]
    graph.launch()  # the view keeps it
    held.clear()
    with pytest.raises(AssertionError, match=r"has been freed: \(3,\) of float32, for iadd"):
        graph.launch()


@pytest.mark.parametrize("name", [name for name in NEW if name not in ("zeros", "arange")])
def test_all_that_is_read_must_be_kept(record: Record, name: str) -> None:
    held = [*matrices()]
    graph, _ = record(lambda: NEW[name](*held))
    graph.launch()
    held.clear()
    with pytest.raises(AssertionError, match="has been freed"):
        graph.launch()


@pytest.mark.parametrize("name", CHANGES)
def test_all_that_is_changed_must_be_kept(record: Record, name: str) -> None:
    held, others = [matrices()[0]], matrices()[1:]
    graph = record(lambda: CHANGES[name](*held, *others))[0]
    graph.launch()
    held.clear()
    with pytest.raises(AssertionError, match="has been freed"):
        graph.launch()


def test_memory_that_a_kernel_or_a_product_uses_must_be_kept(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RawModule, "engine", {"scale": scale})
    kernel = RawModule(code=CODE, options=("-DREAL=float", "-DBLOCK=64")).get_function("scale")
    held, out = [device(3)], device(3)
    graph, _ = record(lambda: kernel((1,), (64,), (held[0], 2.0, out, 3)))
    graph.launch()
    held.clear()
    with pytest.raises(AssertionError, match="for scale"):
        graph.launch()
    for place in range(4):  # a, b, c or the workspace
        blas, held = Blas(), [device(2, 2) for _ in range(3)]
        held.append(blas.workspace)
        graph, _ = record(lambda blas=blas, held=held: blas.gemm(*held[:3]))
        graph.launch()
        del held[place], blas.workspace
        with pytest.raises(AssertionError, match="for cublasGemmEx"):
            graph.launch()


def test_a_private_pool_keeps_what_it_gave(stream: Any) -> None:
    pool, x = cuda.MemoryPool(), device(3)
    stream.begin_capture()
    with cuda.using_allocator(pool.malloc):
        x += x * x
    graph = stream.end_capture()
    graph.launch()
    del pool
    with pytest.raises(AssertionError, match="has been freed"):
        graph.launch()


def test_no_memory_is_freed_for_a_recording(
    record: Record, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(size: int) -> Any:
        raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr(memory, "from_device", full)
    with pytest.raises(AssertionError, match="free memory that the graph uses"):
        record(lambda: standin.zeros((3,)))
    stream.end_capture()
    with pytest.raises(CUDARuntimeError), cuda.using_allocator(cuda.MemoryPool().malloc):
        standin.zeros((3,))


def test_the_common_pool_is_back_after_the_private_one() -> None:
    pool, other = cuda.MemoryPool(), cuda.MemoryPool()
    with cuda.using_allocator(pool.malloc):
        with contextlib.suppress(RuntimeError), cuda.using_allocator(other.malloc):
            assert capture.current.pool is other
            raise RuntimeError
        assert capture.current.pool is pool
    assert capture.current.pool is None
    with pytest.raises(NotImplementedError), cuda.using_allocator(lambda size: pool.malloc(size)):
        pass


# ---- cuBLAS --------------------------------------------------------------------------------------

REAL_TYPES = {"float32": (0, 68, ctypes.c_float), "float64": (1, 70, ctypes.c_double)}


class Blas:
    """Calls the library as ctypes callers do; matrices in Fortran's order are its own."""

    def __init__(self) -> None:
        self.library, self.handle = library(), ctypes.c_void_p()
        assert self.library.cublasCreate_v2(ctypes.byref(self.handle)) == 0
        self.set_stream()
        self.set_workspace()

    def set_stream(self) -> None:
        pointer = ctypes.c_void_p(cuda.get_current_stream().ptr)
        assert self.library.cublasSetStream_v2(self.handle, pointer) == 0

    def set_workspace(self, at: int = 0) -> int:
        self.workspace = standin.empty((1024,), "uint8")
        pointer = ctypes.c_void_p(self.workspace[at:].data.ptr)
        return self.library.cublasSetWorkspace_v2(self.handle, pointer, ctypes.c_size_t(512))

    def gemm(
        self, a: Any, b: Any, c: Any, factor: float = 1.0, keep: float = 0.0, /, **wrong: Any
    ) -> int:
        """c.T = factor·a.T @ b.T + keep·c.T, for row-major arrays; `wrong` replaces arguments."""
        kind, compute, scalar = REAL_TYPES[str(c.dtype)]
        (n, m), k = c.shape[-2:], a.shape[-2]
        given = {"handle": self.handle, "ta": 0, "tb": 0, "m": m, "n": n, "k": k}
        given["alpha"] = ctypes.byref(scalar(factor))
        for name, x in (("a", a), ("b", b), ("c", c)):
            if name == "c":
                given["beta"] = ctypes.byref(scalar(keep))
            given[name] = ctypes.c_void_p(x.data.ptr)
            given |= {f"{name}_type": kind, f"ld{name}": x.strides[-2] // x.itemsize}
            if x.ndim == 3:
                given[f"{name}_stride"] = ctypes.c_longlong(x.strides[0] // x.itemsize)
        if c.ndim == 3:
            given["batch"] = len(c)
        given |= {"compute": compute, "algorithm": -1}
        assert wrong.keys() <= given.keys()
        function = "cublasGemmStridedBatchedEx" if c.ndim == 3 else "cublasGemmEx"
        return getattr(self.library, function)(*(given | wrong).values())


@pytest.fixture
def blas(stream: Any) -> Blas:
    return Blas()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_products_are_numpys(blas: Blas, dtype: str, batch: int | None) -> None:
    """Every transposition, alpha and beta, on parts of larger arrays."""
    (m, n, k), batches = (2, 3, 4), [] if batch is None else [batch]
    close = 1e-5 if dtype == "float32" else 1e-14
    for ta, tb, (alpha, beta) in product((0, 1), (0, 1), ((1.0, 0.0), (1.0, 1.0), (2.0, -0.5))):
        a_shape, b_shape = (m, k) if ta else (k, m), (k, n) if tb else (n, k)
        a, b, c = (
            device(*batches, rows + 1, columns + 2, seed=i, dtype=dtype)[..., :rows, :columns]
            for i, (rows, columns) in enumerate([a_shape, b_shape, (n, m)])
        )
        x, y = (a if ta else a.get().swapaxes(-1, -2)), (b if tb else b.get().swapaxes(-1, -2))
        x, y = (z.get() if isinstance(z, standin.ndarray) else z for z in (x, y))
        expected = alpha * (x @ y).swapaxes(-1, -2) + beta * c.get()
        assert blas.gemm(a, b, c, alpha, beta, ta=ta, tb=tb, k=k) == 0
        np.testing.assert_allclose(c.get(), expected, rtol=close, atol=close)


def test_without_beta_the_output_need_not_hold_numbers(blas: Blas) -> None:
    a, c = device(2, 2), standin.empty((2, 2), "float32")
    assert blas.gemm(a, a, c) == 0
    assert np.isfinite(c.get()).all()
    c = standin.empty((2, 2), "float32")
    blas.gemm(a, a, c, 1.0, 1.0)
    assert np.isnan(c.get()).all()


def test_the_fast_type_has_ten_bits(blas: Blas) -> None:
    one = standin.array(np.array([[1.0]], np.float32))
    for bits, rounded in ((10, 1 + 2.0**-10), (11, 1 + 2.0**-10), (12, 1.0)):
        x = standin.array(np.array([[1 + 2.0**-bits]], np.float32))
        c = standin.empty((1, 1), "float32")
        blas.gemm(x, one, c, compute=77)
        assert c.item() == rounded
        blas.gemm(x, one, c)
        assert c.item() == 1 + 2.0**-bits


def test_a_product_is_made_by_the_replay(record: Record, blas: Blas) -> None:
    a, b, c, alpha = device(2, 3), device(4, 2), standin.zeros((4, 3), "float32"), [2.0]

    def step() -> None:
        assert blas.gemm(a, b, c, alpha[0], 1.0) == 0

    graph, _ = record(step)
    assert not c.get().any()
    alpha[0] = 100.0
    expected = np.zeros((4, 3), np.float32)
    for seed in (5, 6):
        a[...] = device(2, 3, seed=seed)
        graph.launch()
        expected += 2 * (b.get() @ a.get())
        np.testing.assert_allclose(c.get(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"handle": ctypes.c_void_p(8)}, NOT_INITIALIZED),
        ({"m": -1}, INVALID_VALUE),
        ({"lda": 1}, INVALID_VALUE),
        ({"ldb": 2}, INVALID_VALUE),
        ({"ldc": 2}, INVALID_VALUE),
        ({"ta": 7}, INVALID_VALUE),
        ({"algorithm": 0}, INVALID_VALUE),
        ({"compute": 70}, NOT_SUPPORTED),
        ({"compute": 64}, NOT_SUPPORTED),
        ({"a_type": 1}, NOT_SUPPORTED),
        ({"m": 0}, 0),
    ],
)
def test_what_cublas_refuses(blas: Blas, wrong: dict[str, Any], status: int) -> None:
    a, b, c = device(5, 3), device(4, 5), standin.empty((4, 3), "float32")
    assert blas.gemm(a, b, c, **wrong) == status
    assert poisoned(c)
    assert blas.gemm(a, b, c) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": 1 << 40},  # of these bits, ctypes would pass 32
        {"a": ctypes.c_longlong(1 << 40)},
        {"alpha": 1.0},
        {"m": 3.0},
        {"m": ctypes.c_longlong(3)},
        {"m": ctypes.c_void_p(3)},
        {"a_stride": 15},
        {"a_stride": ctypes.c_int(15)},
    ],
)
def test_what_ctypes_would_not_pass_is_refused(blas: Blas, wrong: dict[str, Any]) -> None:
    arrays = device(2, 5, 3), device(2, 4, 5), device(2, 4, 3)
    with pytest.raises(TypeError, match="cublasGemmStridedBatchedEx"):
        blas.gemm(*arrays, **wrong)


def test_declared_types_are_those_of_the_call(blas: Blas) -> None:
    function, workspace = blas.library.cublasSetWorkspace_v2, blas.workspace.data.ptr
    with pytest.raises(TypeError, match="takes 3 arguments"):
        function(blas.handle, ctypes.c_void_p(workspace))
    with pytest.raises(TypeError, match="workspace"):
        function(blas.handle, workspace, ctypes.c_size_t(512))
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    assert function(blas.handle, workspace, 512) == 0
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    with pytest.raises(TypeError, match=r"workspace .* declared as c_int"):
        function(blas.handle, workspace, 512)
    function.restype = None
    with pytest.raises(AssertionError, match="returns an int"):
        blas.set_workspace()


def test_products_run_on_the_current_stream_and_in_a_workspace(blas: Blas) -> None:
    a, c = device(2, 2), device(2, 2)
    blas.set_stream()
    with pytest.raises(AssertionError, match="no workspace since the stream was set"):
        blas.gemm(a, a, c)
    assert blas.set_workspace(at=8) == INVALID_VALUE  # not a multiple of 256
    assert blas.set_workspace(at=256) == 0
    assert blas.gemm(a, a, c) == 0
    del blas.workspace
    with pytest.raises(AssertionError, match="it has been freed"):
        blas.gemm(a, a, c)
    with pytest.raises(ValueError, match="incompatible"):
        blas.set_workspace(at=768)
    other = cuda.Stream(non_blocking=True).use()
    with pytest.raises(AssertionError, match="current stream"):
        blas.gemm(a, a, c)
    pointer = ctypes.c_void_p(other.ptr)
    del other
    capture.reset()
    with pytest.raises(AssertionError, match="is no stream"):
        blas.library.cublasSetStream_v2(blas.handle, pointer)
    assert blas.library.cublasDestroy_v2(blas.handle) == 0
    assert blas.library.cublasDestroy_v2(blas.handle) == NOT_INITIALIZED


def test_addresses_and_types_are_checked(blas: Blas) -> None:
    a, b, c = device(5, 3), device(4, 5), device(4, 3)
    freed = device(5, 3)
    address = ctypes.c_void_p(freed.data.ptr)
    del freed
    for wrong in (address, ctypes.c_void_p(1 << 40)):
        with pytest.raises(AssertionError, match="is no device memory, or has been freed"):
            blas.gemm(a, b, c, a=wrong)
    with pytest.raises(ValueError, match="incompatible"):
        blas.gemm(a, b, c, lda=4)  # the last column would end beyond the memory
    with pytest.raises(AssertionError, match="is taken for"):
        blas.gemm(device(5, 3, dtype="float64"), b, c)
    with pytest.raises(AssertionError, match="c_float"):
        blas.gemm(a, b, c, alpha=ctypes.byref(ctypes.c_double(1.0)))
    square = device(4, 4)
    with pytest.raises(AssertionError, match="C lies in A or B"):
        blas.gemm(square, square, square)


def test_the_outputs_of_a_batch_lie_apart(blas: Blas) -> None:
    a, b, c = device(2, 5, 3), device(2, 4, 5), standin.empty((4, 2, 3), "float32")
    side_by_side = c.transpose(1, 0, 2)
    assert blas.gemm(a, b, side_by_side) == 0
    np.testing.assert_allclose(side_by_side.get(), b.get() @ a.get(), rtol=1e-5)
    with pytest.raises(AssertionError, match="overlap"):
        blas.gemm(a, b, side_by_side, c_stride=ctypes.c_longlong(2))
    with pytest.raises(AssertionError, match="overlap"):
        blas.gemm(a, b, device(2, 4, 3), c_stride=ctypes.c_longlong(6))


# ---- and nothing that CuPy has not ---------------------------------------------------------------


def test_the_stand_in_offers_nothing_that_cupys_cuda_lacks() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    assert [name for name in vars(cuda) if not hasattr(cupy.cuda, name)] == ["available"]
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    pairs = [(getattr(cuda, n), n) for n in ("Device", "Graph", "MemoryPool", "MemoryPointer")]
    pairs += [(capture.Stream, "Stream"), (type(cuda.runtime), "runtime")]
    for ours, name in pairs:
        theirs = getattr(cupy.cuda, name)
        public = [word for word in vars(ours) if not word.startswith("_")]
        assert [word for word in public if not hasattr(theirs, word)] == [], name
