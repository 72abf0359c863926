"""CuPy: cuBLAS products, array functions, and own kernels where one launch replaces several.

A small network's step on a GPU is bound by the number of launches, not by arithmetic: operations
that take three or more array functions in `interface.py` are one kernel each in `kernels.cu`.
Anything a kernel does not take (another dtype, a strided view) goes the plain way.
"""

from __future__ import annotations

import warnings
from importlib import import_module, resources
from typing import Any

import numpy as np

from tinygan.backend.interface import Array, Backend
from tinygan.errors import BackendError

BLOCK = 256  # threads in a block
OPTIONS = (f"-DBLOCK={BLOCK}", "--fmad=false")
INSTALL = 'pip install "cupy-cuda12x[ctk]" (or cupy-cuda13x, by the CUDA version of your driver)'
ELSE = "or take the numpy backend"


def kernel_source() -> str:
    """The text of kernels.cu."""
    return resources.files("tinygan.backend").joinpath("kernels.cu").read_text(encoding="utf-8")


def compiler_options(dtype: Any) -> tuple[str, ...]:
    """What NVRTC is told besides the source, for arrays of `dtype`."""
    return (f"-DREAL={'float' if np.dtype(dtype) == np.float32 else 'double'}", *OPTIONS)


class CupyBackend(Backend):
    """Arrays are cupy.ndarray; calls return before the device has finished.

    Nothing here waits for the device but `to_host`, `synchronise` and the constructor.
    Raises BackendError, one line that says what to do, where CuPy cannot run.
    """

    name = "cupy"

    def __init__(self, dtype: str = "float32", reason: str = "cupy, as asked") -> None:
        cupy = _import_cupy()
        super().__init__(cupy, dtype)
        self.device = _describe_device(cupy)
        self.reason = reason
        self._module = cupy.RawModule(code=kernel_source(), options=compiler_options(self.dtype))
        self._kernels: dict[str, Any] = {}
        self._try_out()

    def _try_out(self) -> None:
        """Compile, multiply and copy once, so that a broken installation shows itself here."""
        try:
            self.philox((0, 0), (0, 0, 0, 0), 8)
            square = self.zeros((2, 2))
            self.to_host(self.matmul(square, square, out=self.empty((2, 2))))
        except Exception as problem:  # each of CuPy's parts has errors of its own
            raise BackendError(
                f"cupy finds a GPU but cannot use it ({_first_line(problem)}): {INSTALL}, {ELSE}"
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

    def philox(self, key: tuple[int, int], counter: tuple[int, int, int, int], n: int) -> Array:
        # Words beyond 2^63 do not fit the long long of a Python int: numpy.uint64 goes by value.
        words = [np.uint64(word) for word in (*key, *counter)]
        out = self.empty((n,), "uint32")
        blocks = -(-n // 8)  # one thread makes eight words
        self._launch("philox", -(-blocks // BLOCK), out, n, *words)
        return out

    def dropout_factor(self, words: Array, q: int, out: Array) -> Array:
        fits = self._takes(out) and self._takes(words, dtype="uint32")
        if not fits or 4 * words.size < out.size:
            return super().dropout_factor(words, q, out)
        self._each("dropout_factor", words, q, 256.0 / q, out, n=out.size)
        return out

    def gather_images(
        self, images: Array, index: Array, scale: float, shift: float, out: Array
    ) -> Array:
        fits = self._takes(images, dtype="uint8") and self._takes(index, dtype="int64")
        if not fits or not self._takes(out) or out.shape != (*index.shape, *images.shape[1:]):
            return super().gather_images(images, index, scale, shift, out)
        size = images[0].size
        self._each("gather_images", images, index, scale, shift, out, size, n=out.size)
        return out

    # ---- sums --------------------------------------------------------------------------------

    def column_sums(self, x: Array, out: Array) -> Array:
        if not self._takes(x, out) or out.shape != x.shape[1:] or x.ndim != 2:
            return super().column_sums(x, out)
        self._launch("column_sums", -(-x.shape[1] // 32), x, out, *x.shape, 0)
        return out

    def add_column_sums(self, x: Array, out: Array) -> Array:
        if not self._takes(x, out) or out.shape != x.shape[1:] or x.ndim != 2:
            return super().add_column_sums(x, out)
        self._launch("column_sums", -(-x.shape[1] // 32), x, out, *x.shape, 1)
        return out

    # ---- activations -------------------------------------------------------------------------

    def leaky_factor(self, x: Array, slope: float, out: Array) -> Array:
        if not self._takes_alike(x, out):
            return super().leaky_factor(x, slope, out)
        self._each("leaky_factor", x, float(slope), out, n=x.size)
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

    # ---- losses ------------------------------------------------------------------------------

    def bce_logits(self, x: Array, target: Any, out: Array) -> Array:
        labels = self._labels(x, target)
        if labels is None or not self._takes_alike(x, out):
            return super().bce_logits(x, target, out)
        loss = self.empty(())
        self._launch("bce_logits", 1, x, *labels, out, loss, x.size)
        return loss

    def bce_probabilities(self, p: Array, target: Any, eps: float, out: Array) -> Array:
        labels = self._labels(p, target)
        if labels is None or not self._takes_alike(p, out):
            return super().bce_probabilities(p, target, eps, out)
        loss = self.empty(())
        self._launch("bce_probabilities", 1, p, *labels, float(eps), out, loss, p.size)
        return loss

    def _labels(self, x: Array, target: Any) -> tuple[Array, int, float] | None:
        """(target, soft, label) for the loss kernels: labels from an array, or one number."""
        if isinstance(target, (int, float)):
            return x, 0, float(target)
        return (target, 1, 0.0) if self._takes_alike(x, target) else None

    # ---- optimisers --------------------------------------------------------------------------

    def sgd(self, theta: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
        if not self._takes_alike(theta, grad, velocity):
            return super().sgd(theta, grad, velocity, lr, momentum)
        self._each("sgd", theta, grad, velocity, float(lr), float(momentum), n=theta.size)

    def adam(
        self,
        theta: Array,
        grad: Array,
        m: Array,
        v: Array,
        beta1: float,
        beta2: float,
        rate: float,
        eps: float,
    ) -> None:
        if not self._takes_alike(theta, grad, m, v):
            return super().adam(theta, grad, m, v, beta1, beta2, rate, eps)
        scalars = map(float, (beta1, beta2, rate, eps))
        self._each("adam", theta, grad, m, v, *scalars, n=theta.size)


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
            f"the package cupy does not import ({_first_line(problem)}): {INSTALL}, {ELSE}"
        ) from problem
    # `import cupy` succeeds without a GPU; the first array would not.
    if not cupy.cuda.is_available():
        raise BackendError(f"{_why_no_device(cupy.cuda.runtime)}, {ELSE}")
    return cupy


def _why_no_device(runtime: Any) -> str:
    try:
        driver, own = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception as problem:
        return f"cupy is installed but CUDA does not answer: {_first_line(problem)}"
    if driver == 0:
        return "cupy is installed but there is no NVIDIA driver: install it"
    if driver // 1000 < own // 1000:
        return (
            f"the NVIDIA driver knows CUDA {_version(driver)} but this cupy is made for "
            f"{_version(own)}: update the driver, or pip install cupy-cuda{driver // 1000}x instead"
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


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)


def _kind(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0]} {type(value).__name__}"
