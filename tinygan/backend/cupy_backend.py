"""CuPy: cuBLAS products, array functions, and own kernels where one launch replaces several.

A small network's step on a GPU is bound by the number of launches, not by arithmetic: operations
that take several array functions in `interface.py` are one kernel each in `kernels.cu` and
`convolution.cu`.
Anything a kernel does not take (another dtype, a strided view) goes the plain way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module, resources
from typing import Any

import numpy as np

from tinygan.backend.convolution import Convolution
from tinygan.backend.cublas import WORKSPACE, Cublas
from tinygan.backend.cupy_convolution import COUNT, LoweredConvolution, largest
from tinygan.backend.geometry import Geometry
from tinygan.backend.graph import CapturedStep
from tinygan.backend.interface import Array, Backend, Numbers
from tinygan.errors import BackendError, first_line

BLOCK = 256  # threads in a block
SOURCES = ("kernels.cu", "convolution.cu")  # the first has what the others use
OPTIONS = (f"-DBLOCK={BLOCK}", "--fmad=false")
INSTALL = 'pip install "cupy-cuda12x[ctk]" (or cupy-cuda13x, by the CUDA version of your driver)'
ELSE = "or take the numpy backend"


def kernel_source() -> str:
    """The text of all kernels, one module."""
    folder = resources.files("tinygan.backend")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES)


def compiler_options(dtype: Any) -> tuple[str, ...]:
    """What NVRTC is told besides the source, for arrays of `dtype`."""
    return (f"-DREAL={'float' if np.dtype(dtype) == np.float32 else 'double'}", *OPTIONS)


class CupyBackend(Backend):
    """Arrays are cupy.ndarray; calls return before the device has finished.

    Nothing here waits for the device but `to_host`, `synchronise` and the constructor.
    Raises BackendError, one line that says what to do, where CuPy cannot run.
    """

    name = "cupy"

    def __init__(
        self,
        dtype: str = "float32",
        reason: str = "cupy, as asked",
        precision: str = "float32",
    ) -> None:
        """`precision`: "float32", or "tf32" for products of float32 on tensor cores: [gpu.4]."""
        cupy = _import_cupy()
        super().__init__(cupy, dtype)
        self.device = _describe_device(cupy)
        self.reason, self.precision = reason, precision
        self.recording: CapturedStep | None = None  # the step that a CUDA graph is made of just now
        self._module = cupy.RawModule(code=kernel_source(), options=compiler_options(self.dtype))
        self._kernels: dict[str, Any] = {}
        self._outgrown: list[Array] = []
        self._try_out()

    def _try_out(self) -> None:
        """Compile, multiply and copy once, so that a broken installation shows itself here."""
        try:
            self.synchronise()  # with what was done before, on another stream
            self.stream, self._cublas = _own(self.xp)
            # For good. CuPy forgets a stream that is only in `use`: after any `with` of a stream,
            # such as in its own `get` of a strided array, the null stream is the current one.
            self.stream.__enter__()
            self.philox((0, 0), (0, 0, 0, 0), 8)
            square = self.zeros((2, 2))
            self.to_host(self.matmul(square, square, out=self.empty((2, 2))))
        except Exception as problem:  # each of CuPy's parts has errors of its own
            raise BackendError(
                f"cupy finds a GPU but cannot use it ({first_line(problem)}): {INSTALL}, {ELSE}"
            ) from problem

    # ---- memory ------------------------------------------------------------------------------

    def from_host(self, array: Any, dtype: Any = None) -> Array:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"from_host takes a numpy.ndarray, got {_kind(array)}")
        if dtype is None and np.issubdtype(array.dtype, np.floating):
            dtype = self.dtype
        return self.xp.array(np.asarray(array, dtype))

    def to_host(self, array: Array) -> Any:
        self.check(array, "the array given to to_host")
        return self.xp.asnumpy(array)

    def synchronise(self) -> None:
        self.xp.cuda.Device().synchronize()

    def check(self, array: Any, what: str) -> None:
        if not isinstance(array, self.xp.ndarray):
            raise TypeError(
                f"{what} must be a cupy.ndarray for the cupy backend, got {_kind(array)}: copy it "
                "to the GPU first (backend.from_host(a) for a numpy.ndarray, from_host(t.numpy()) "
                "for a torch tensor, from_host(numpy.array(a)) for a list)"
            )

    def workspace(self, name: str, shape: tuple[int, ...]) -> Array:
        before = self._workspaces.get(name)
        found = super().workspace(name, shape)
        if before is not None and self._workspaces[name] is not before:
            self._outgrown.append(before)  # a captured step may go on to write there
        return found

    # ---- steps that are recorded and replayed ----------------------------------------------------

    def numbers(self, count: int, read: Callable[[], tuple[float, ...]]) -> Numbers:
        if self.recording is not None:
            return self.recording.slot(count, read)
        out = self.empty((count,), "float64")
        self.set_numbers(out, read())
        return out

    def set_numbers(self, out: Array, numbers: Sequence[float]) -> None:
        """out[: len(numbers)] = numbers, without a copy from the host."""
        for at in range(0, len(numbers), 8):
            eight = [float(number) for number in numbers[at : at + 8]]
            self._launch("set_numbers", 1, out, at, len(eight), *eight, *[0.0] * (8 - len(eight)))

    def capture(self, step: Callable[[], object]) -> Callable[[], object]:
        return CapturedStep(self, step)

    # ---- launching ---------------------------------------------------------------------------

    def _launch(self, name: str, blocks: int, *args: Any) -> None:
        """Run a kernel; Python floats arrive as double, ints as long long."""
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self._module.get_function(name)
        if blocks:
            kernel((blocks,), (BLOCK,), args)

    def _each(self, name: str, *args: Any, n: int) -> None:
        """Run a kernel that gives each of n elements a thread and takes n last."""
        self._launch(name, -(-n // BLOCK), *args, n)

    def _takes(self, *arrays: Any, dtype: str | None = None) -> bool:
        """Whether kernels may walk over these arrays: CuPy's, of one dtype (ours), in C order."""
        dtype = dtype or self.dtype
        return all(
            isinstance(a, self.xp.ndarray) and a.dtype == dtype and a.flags.c_contiguous
            for a in arrays
        )

    def _takes_alike(self, *arrays: Any) -> bool:
        """The same, and of one shape."""
        return self._takes(*arrays) and all(a.shape == arrays[0].shape for a in arrays)

    # ---- noise and data ----------------------------------------------------------------------

    def philox(
        self,
        key: tuple[int, int],
        counter: tuple[int, int, int, int],
        n: int,
        step: Numbers = None,
    ) -> Array:
        # Words beyond 2^63 do not fit the long long of a Python int: numpy.uint64 goes by value.
        words = [np.uint64(word) for word in (*key, *counter)]
        out = self.empty((n,), "uint32")
        blocks = -(-n // 8)  # one thread makes eight words
        step = self.numbers(1, lambda: (0,)) if step is None else step
        self._launch("philox", -(-blocks // BLOCK), out, n, step, *words)
        return out

    def uniforms(self, words: Array, low: float, high: float, out: Array) -> Array:
        if not self._takes_words(words, out, at_least=out.size):
            return super().uniforms(words, low, high, out)
        self._each("uniforms", words, float(low), float(high), out, n=out.size)
        return out

    def normals(self, words: Array, std: float, out: Array) -> Array:
        pairs = -(-out.size // 2)
        if not self._takes_words(words, out, at_least=2 * pairs):
            return super().normals(words, std, out)
        self._launch("normals", -(-pairs // BLOCK), words, float(std), out, out.size)
        return out

    def integers(self, words: Array, high: int, out: Array) -> Array:
        if not self._takes_words(words, at_least=out.size) or not self._takes(out, dtype="int64"):
            return super().integers(words, high, out)
        self._each("integers", words, int(high), out, n=out.size)
        return out

    def _takes_words(self, words: Array, *arrays: Array, at_least: int) -> bool:
        enough = words.size >= at_least
        return enough and self._takes(words, dtype="uint32") and self._takes(*arrays)

    def dropout_factor(self, words: Array, q: int, out: Array) -> Array:
        if not self._takes_words(words, out, at_least=-(-out.size // 4)):
            return super().dropout_factor(words, q, out)
        self._each("dropout_factor", words, q, 256.0 / q, out, n=out.size)
        return out

    def window(self, x: Array, at: Numbers, n: int) -> Array:
        out = self.empty((n,), "int64")
        self._each("window", x, at, out, n=n)
        return out

    def gather_images(
        self, images: Array, index: Array, scale: float, shift: float, out: Array
    ) -> Array:
        fits = self._takes(images, dtype="uint8") and self._takes(index, dtype="int64")
        if not fits or not self._takes(out) or out.shape != (*index.shape, *images.shape[1:]):
            return super().gather_images(images, index, scale, shift, out)
        size = images[0].size
        numbers = float(scale), float(shift)
        self._each("gather_images", images, index, *numbers, out, size, n=out.size)
        return out

    # ---- products ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        if not self._cublas.takes(a, b, out):
            return super().matmul(a, b, out)
        self._cublas.product(a, b, out, self.precision)
        return out

    def matmuls(self, a: Array, b: Array, out: Array) -> Array:
        return self.matmul(a, b, out)

    def matmul_add(self, a: Array, b: Array, out: Array) -> Array:
        if not self._cublas.takes(a, b, out):
            return super().matmul_add(a, b, out)
        self._cublas.product(a, b, out, self.precision, add=True)
        return out

    # ---- sums --------------------------------------------------------------------------------

    def column_sums(self, x: Array, out: Array) -> Array:
        if not self._takes(x, out) or out.shape != x.shape[1:] or x.ndim != 2:
            return super().column_sums(x, out)
        return self._column_sums(x, out, add=0)

    def add_column_sums(self, x: Array, out: Array) -> Array:
        if not self._takes(x, out) or out.shape != x.shape[1:] or x.ndim != 2:
            return super().add_column_sums(x, out)
        return self._column_sums(x, out, add=1)

    def _column_sums(self, x: Array, out: Array, add: int) -> Array:
        height, parts, across = _tiles(*x.shape)
        if parts > 1:
            sums = self.scratch("sums of tiles", (parts, x.shape[1]))
            self._launch("column_sums", across * parts, x, sums, *x.shape, height, 0)
            x, height = sums, parts
        self._launch("column_sums", across, x, out, *x.shape, height, add)
        return out

    # ---- images ------------------------------------------------------------------------------

    def _plan(self, geometry: Geometry, c_in: int, c_out: int) -> Convolution:
        if largest(geometry, c_in) >= COUNT:  # one sample would not do
            return super()._plan(geometry, c_in, c_out)
        return LoweredConvolution(self, geometry, c_in, c_out, self._each)

    def max_pool(self, x: Array, geometry: Geometry, y: Array, winner: Array) -> Array:
        if not self._pools(geometry, x, y, winner):
            return super().max_pool(x, geometry, y, winner)
        self._each("max_pool", x, y, winner, *geometry.flat(), x.shape[3], n=y.size)
        return y

    def max_pool_backward(self, dy: Array, winner: Array, geometry: Geometry, out: Array) -> Array:
        if not self._pools(geometry, out, dy, winner):
            return super().max_pool_backward(dy, winner, geometry, out)
        numbers = *geometry.flat(), dy.shape[3]
        self._each("max_pool_backward", dy, winner, out, *numbers, n=out.size)
        return out

    def _pools(self, geometry: Geometry, images: Array, windows: Array, winner: Array) -> bool:
        """Whether kernels may pool these images into these windows."""
        n, _, _, c = images.shape
        fits = images.shape == (n, *geometry.input, c) and max(images.size, windows.size) < COUNT
        fits = fits and windows.shape == (n, *geometry.output, c)
        return fits and self._takes(images) and self._takes_alike(windows, winner)

    # ---- activations -------------------------------------------------------------------------

    def leaky(self, x: Array, slope: float, out: Array) -> Array:
        if not self._takes_alike(x, out):
            return super().leaky(x, slope, out)
        self._each("leaky", x, float(slope), out, n=x.size)
        return out

    def leaky_backward(self, dy: Array, x: Array, slope: float, out: Array) -> Array:
        if not self._takes_alike(dy, x, out):
            return super().leaky_backward(dy, x, slope, out)
        self._each("leaky_backward", dy, x, float(slope), out, n=x.size)
        return out

    def sigmoid(self, x: Array, out: Array) -> Array:
        if not self._takes_alike(x, out):
            return super().sigmoid(x, out)
        self._each("sigmoid", x, out, n=x.size)
        return out

    def sigmoid_backward(self, dy: Array, y: Array, out: Array) -> Array:
        if not self._takes_alike(dy, y, out):
            return super().sigmoid_backward(dy, y, out)
        self._each("sigmoid_backward", dy, y, out, n=y.size)
        return out

    def tanh_backward(self, dy: Array, y: Array, out: Array) -> Array:
        if not self._takes_alike(dy, y, out):
            return super().tanh_backward(dy, y, out)
        self._each("tanh_backward", dy, y, out, n=y.size)
        return out

    def maxout(self, h: Array, out: Array) -> Array:
        n, pieces, units = h.shape
        if not self._takes(h, out) or out.shape != (n, units):
            return super().maxout(h, out)
        self._each("maxout", h, out, pieces, units, n=out.size)
        return out

    def maxout_backward(self, dy: Array, h: Array, y: Array, out: Array) -> Array:
        _, pieces, units = h.shape
        if not (self._takes_alike(h, out) and self._takes_alike(dy, y)):
            return super().maxout_backward(dy, h, y, out)
        self._each("maxout_backward", dy, h, y, out, pieces, units, n=y.size)
        return out

    # ---- batch normalisation -------------------------------------------------------------------

    def batch_norm(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        eps: float,
        x_hat: Array,
        y: Array,
        stats: Array,
    ) -> None:
        """One launch up to 256 rows, else two: [bn.8]. How sums are rounded: see `_tiles`."""
        fits = self._takes_alike(x, x_hat, y) and self._takes_alike(gamma, beta)
        fits = fits and gamma.shape == x.shape[1:] and stats.shape == (3, *gamma.shape)
        if not fits or not self._takes(stats):
            return super().batch_norm(x, gamma, beta, eps, x_hat, y, stats)
        (height, parts, across), sums = _tiles(*x.shape), x
        blocks, sizes = across * parts, (*x.shape, height)
        if parts > 1:
            sums = self.scratch("two sums of tiles", (2, parts, x.shape[1]))
            self._launch("batch_norm_sums", blocks, x, sums, *sizes)
        arrays = (x, gamma, beta, float(eps), sums, x_hat, y, stats)
        self._launch("batch_norm", blocks, *arrays, *sizes)

    def batch_norm_backward(
        self,
        dy: Array,
        x_hat: Array,
        gamma: Array,
        inv_std: Array,
        out: Array,
        gradients: tuple[Array, Array] | None = None,
    ) -> Array:
        """One launch up to 256 rows, else two. How sums are rounded: see `_tiles`."""
        rows = (gamma, inv_std) if gradients is None else (gamma, inv_std, *gradients)
        fits = self._takes_alike(dy, x_hat, out) and self._takes_alike(*rows)
        if not fits or gamma.shape != dy.shape[1:]:
            return super().batch_norm_backward(dy, x_hat, gamma, inv_std, out, gradients)
        add, places = (0, (out, out)) if gradients is None else (1, gradients)
        (height, parts, across), sums = _tiles(*dy.shape), dy
        blocks, sizes = across * parts, (*dy.shape, height)
        if parts > 1:
            sums = self.scratch("two sums of tiles", (2, parts, dy.shape[1]))
            self._launch("batch_norm_backward_sums", blocks, dy, x_hat, sums, *sizes)
        arrays = (dy, x_hat, gamma, inv_std, sums, out, *places, add)
        self._launch("batch_norm_backward", blocks, *arrays, *sizes)
        return out

    def move_statistics(self, mean: Array, var: Array, stats: Array, momentum: float) -> None:
        if not (self._takes_alike(mean, var) and self._takes(stats) and stats[0].size == mean.size):
            return super().move_statistics(mean, var, stats, momentum)
        self._each("move_statistics", mean, var, stats, float(momentum), n=mean.size)

    # ---- losses ------------------------------------------------------------------------------

    def bce_logits(self, x: Array, target: Any, out: Array, share: float = 1.0) -> Array:
        labels = self._labels(x, target)
        if labels is None or not self._takes_alike(x, out):
            return super().bce_logits(x, target, out, share)
        loss = self.empty(())
        self._launch("bce_logits", 1, x, *labels, float(share), out, loss, x.size)
        return loss

    def bce_probabilities(
        self, x: Array, target: Any, eps: float, out: Array, share: float = 1.0
    ) -> Array:
        labels = self._labels(x, target)
        if labels is None or not self._takes_alike(x, out):
            return super().bce_probabilities(x, target, eps, out, share)
        loss, numbers = self.empty(()), (float(eps), float(share))
        self._launch("bce_probabilities", 1, x, *labels, *numbers, out, loss, x.size)
        return loss

    def _labels(self, x: Array, target: Any) -> tuple[Array, int, float] | None:
        """(target, soft, label) for the loss kernels: labels from an array, or one number."""
        if isinstance(target, (int, float)):
            return x, 0, float(target)
        return (target, 1, 0.0) if self._takes_alike(x, target) else None

    # ---- optimisers --------------------------------------------------------------------------

    def sgd(self, theta: Array, grad: Array, velocity: Array, rates: Numbers) -> None:
        if not self._takes_alike(theta, grad, velocity):
            return super().sgd(theta, grad, velocity, rates)
        self._each("sgd", theta, grad, velocity, rates, n=theta.size)

    def adam(
        self,
        theta: Array,
        grad: Array,
        m: Array,
        v: Array,
        beta1: float,
        beta2: float,
        rates: Numbers,
    ) -> None:
        if not self._takes_alike(theta, grad, m, v):
            return super().adam(theta, grad, m, v, beta1, beta2, rates)
        self._each("adam", theta, grad, m, v, float(beta1), float(beta2), rates, n=theta.size)


def _tiles(rows: int, columns: int) -> tuple[int, int, int]:
    """How kernels that sum columns cut a matrix: (rows of a tile, tiles downwards, and across).

    Up to 256 rows are one tile, summed in one launch. Higher matrices are up to 128 tiles high, of
    128 rows or more: so many blocks of threads share the work, and a second launch adds up little.
    A thread adds each eighth row of its tile in the arrays' dtype, 32 numbers or rows/1024, and all
    else is added in float64: the error is below that many roundings of the sum of absolute values.
    """
    height = max(rows, 1) if rows <= 256 else max(128, -(-rows // 128))
    return height, -(-rows // height), -(-columns // 32)


@cache
def _own(cupy: Any) -> tuple[Any, Cublas]:
    """The stream on which everything happens, in order, and its cuBLAS: one for the process.

    CUDA records no graph on its default stream.
    """
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.use()
    return stream, Cublas(stream.ptr, cupy.empty((WORKSPACE,), "uint8"))


# ---- what is here, and what to say where it is not -----------------------------------------------


def _import_cupy() -> Any:
    """The cupy module, once it has found a device; BackendError, in one line, where it does not."""
    try:
        with warnings.catch_warnings():  # such as one about two CuPy packages side by side
            warnings.simplefilter("ignore")
            cupy = import_module("cupy")
    except Exception as problem:
        if isinstance(problem, ModuleNotFoundError) and problem.name == "cupy":
            raise BackendError(f"the package cupy is not installed: {INSTALL}, {ELSE}") from None
        raise BackendError(
            f"the package cupy does not import ({first_line(problem)}): {INSTALL}, {ELSE}"
        ) from problem
    # `import cupy` succeeds without a GPU; the first array would not.
    if not cupy.cuda.is_available():
        raise BackendError(f"{_why_no_device(cupy.cuda.runtime)}, {ELSE}")
    return cupy


def _why_no_device(runtime: Any) -> str:
    try:
        driver, own = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception as problem:
        return f"cupy is installed but CUDA does not answer: {first_line(problem)}"
    if driver == 0:
        return "cupy is installed but there is no NVIDIA driver: install it"
    major, made_for = driver // 1000, own // 1000  # a driver runs all that its major version can
    if major < made_for:
        instead = f'pip uninstall cupy-cuda{made_for}x and pip install "cupy-cuda{major}x[ctk]"'
        return (
            f"the NVIDIA driver knows CUDA {_version(driver)} but this cupy is made for "
            f"{_version(own)}: update the driver" + (f", or {instead}" if major >= 12 else "")
        )
    return "cupy is installed but no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES"


def _describe_device(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(runtime.getDevice())
    return (
        f"{about['name'].decode()}, {about['totalGlobalMem'] / 2**30:.0f} GiB, "
        f"CUDA {_version(runtime.runtimeGetVersion())}, cupy {cupy.__version__}"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _kind(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0]} {type(value).__name__}"
