"""The only rooms that know NumPy or CuPy: `get_backend` opens the door to one of them."""

from __future__ import annotations

from tinygan.backend.interface import Array, Backend
from tinygan.backend.numpy_backend import NumpyBackend
from tinygan.errors import BackendError

__all__ = ["Array", "Backend", "get_backend"]

NAMES = ("auto", "numpy", "cupy")


def get_backend(name: str = "auto", dtype: str = "float32") -> Backend:
    """The backend called `name`, computing in `dtype` ("float32" or "float64").

    "auto" takes CuPy where it finds the package and a device, else NumPy; `backend.reason` says
    which and why. Raises BackendError in one line when "cupy" is asked for and cannot run.
    """
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")
    if dtype not in ("float32", "float64"):
        raise BackendError(f"unknown dtype {dtype!r}: choose float32 or float64")
    if name == "numpy":
        return NumpyBackend(dtype, reason="numpy, as asked")
    try:
        # Imported here only: a machine without CuPy must be able to use the rest of the library.
        from tinygan.backend.cupy_backend import CupyBackend

        why_cupy = "cupy, as asked" if name == "cupy" else "cupy, since a GPU is here"
        return CupyBackend(dtype, reason=why_cupy)
    except BackendError as why:
        if name == "cupy":
            raise
        return NumpyBackend(dtype, reason=f"numpy, since cupy cannot run here ({why})")
