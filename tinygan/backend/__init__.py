"""The only rooms that know NumPy or CuPy: `get_backend` opens the door to one of them."""

from __future__ import annotations

from tinygan.backend.interface import Array, Backend, Numbers
from tinygan.backend.numpy_backend import NumpyBackend, require_numpy
from tinygan.errors import BackendError

__all__ = ["Array", "Backend", "Numbers", "get_backend", "require_numpy"]

NAMES = ("auto", "numpy", "cupy")
NO_TF32 = "tf32 is a mode of NVIDIA tensor cores: take --backend cupy, or leave --precision out"


def get_backend(name: str = "auto", dtype: str = "float32", precision: str = "float32") -> Backend:
    """The backend called `name`, computing in `dtype` ("float32" or "float64").

    "auto" takes CuPy where it finds the package and a device, else NumPy; `backend.reason` says
    which and why. `precision` is that of products of float32 matrices: "tf32", on CuPy alone,
    rounds their inputs to ten bits behind the point. Raises BackendError in one line when "cupy"
    or "tf32" is asked for and cannot be had.
    """
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")
    if dtype not in ("float32", "float64"):
        raise BackendError(f"unknown dtype {dtype!r}: choose float32 or float64")
    if precision not in ("float32", "tf32"):
        raise BackendError(f"unknown precision {precision!r}: choose float32 or tf32")
    if precision == "tf32" and dtype == "float64":
        raise BackendError("tf32 is for products of float32: leave out --dtype float64 or tf32")
    if name == "numpy":
        if precision == "tf32":
            raise BackendError(NO_TF32)
        return NumpyBackend(dtype, reason="numpy, as asked")
    try:
        # Imported here only: a machine without CuPy must be able to use the rest of the library.
        from tinygan.backend.cupy_backend import CupyBackend

        why_cupy = "cupy, as asked" if name == "cupy" else "cupy, since a GPU is here"
        return CupyBackend(dtype, reason=why_cupy, precision=precision)
    except BackendError as why:
        if name == "cupy":
            raise
        if precision == "tf32":
            raise BackendError(f"{NO_TF32} ({why})") from why
        return NumpyBackend(dtype, reason=f"numpy, since cupy cannot run here ({why})")
