"""NVIDIA's run-time compiler through ctypes: it compiles CUDA source without a device."""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes.util import find_library
from functools import cache
from pathlib import Path


class CompileError(Exception):
    """The compiler's own words."""


@cache
def load() -> ctypes.CDLL | None:
    """The library, from NVIDIA's pip packages or the system; None where there is none."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    found = [str(path) for f in folders for path in sorted(f.glob("*/lib/libnvrtc.so.*"))]
    for name in [*found, find_library("nvrtc")]:
        try:
            if name:
                return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def compile_to_ptx(source: str, options: tuple[str, ...]) -> str:
    """The PTX of `source`; CompileError with the compiler's log at an error or a warning."""
    lib = load()
    assert lib is not None
    program = ctypes.c_void_p()
    text = source.encode()
    made = lib.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    assert made == 0
    try:
        flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = lib.nvrtcCompileProgram(program, len(options), flags)
        log = _read(lib, program, "ProgramLog")
        if failed or "warning" in log:
            raise CompileError(log)
        return _read(lib, program, "PTX")
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _read(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(lib, f"nvrtcGet{what}")(program, text)
    return text.value.decode()
