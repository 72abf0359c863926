"""kernels.cu compiled for the CPU: the kernels' own source runs, thread by thread, without a GPU.

The few words of CUDA that it uses are given meanings in C++. The threads of a block are
coroutines (ucontext) that hand over at __syncthreads(), forwards or, to bring races to light,
from the last thread to the first.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from standin.module import Engine, Parameter, signatures

PRELUDE = r"""
#include <math.h>
#include <ucontext.h>
#define __global__
#define __device__ static
#define __shared__ static
struct Index { unsigned x; };
static Index blockIdx, blockDim, threadIdx;
[[maybe_unused]] static unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{ return (unsigned long long)((unsigned __int128)a * b >> 64); }
static ucontext_t scheduler, contexts[BLOCK];
[[maybe_unused]] static void __syncthreads() { swapcontext(&contexts[threadIdx.x], &scheduler); }
"""

LAUNCHER = r"""
static void (*body)();
static bool ended[BLOCK];
static char stacks[BLOCK][1 << 15];
static void enter() { body(); ended[threadIdx.x] = true; }
static void launch(unsigned grid, bool backwards)
{
    blockDim.x = BLOCK;
    for (unsigned block = 0; block < grid; block++) {
        for (int i = 0; i < BLOCK; i++) {
            ended[i] = false;
            getcontext(&contexts[i]);
            contexts[i].uc_stack.ss_sp = stacks[i];
            contexts[i].uc_stack.ss_size = sizeof stacks[i];
            contexts[i].uc_link = &scheduler;
            makecontext(&contexts[i], enter, 0);
        }
        for (bool more = true; more;) {  // each round runs every thread up to its next barrier
            more = false;
            for (int i = 0; i < BLOCK; i++) {
                int thread = backwards ? BLOCK - 1 - i : i;
                if (ended[thread]) continue;
                more = true;
                blockIdx.x = block;
                threadIdx.x = thread;
                swapcontext(&scheduler, &contexts[thread]);
            }
        }
    }
}
"""


def compiler() -> str | None:
    """A C++ compiler that can do it, or None."""
    if not sys.platform.startswith("linux"):
        return None
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def _wrapper(name: str, parameters: list[Parameter]) -> str:
    """Arguments wait in globals while the threads, which take none, run the kernel."""
    held = "".join(f"static {p.type} {p.name}_of_{name};\n" for p in parameters)
    call = ", ".join(f"{p.name}_of_{name}" for p in parameters)
    formal = ", ".join(f"{p.type} {p.name}" for p in parameters)
    take = " ".join(f"{p.name}_of_{name} = {p.name};" for p in parameters)
    return (
        f"{held}static void {name}_body() {{ {name}({call}); }}\n"
        f'extern "C" void launch_{name}(unsigned grid, int backwards, {formal})\n'
        f"{{ {take} body = {name}_body; launch(grid, backwards); }}\n"
    )


@cache
def library(code: str, real: str, block: int, folder: Path) -> ctypes.CDLL:
    """The shared library of all kernels; RuntimeError with the compiler's words if it refuses."""
    wrappers = "".join(_wrapper(name, p) for name, p in signatures(code, real).items())
    source, target = folder / f"kernels_{real}.cpp", folder / f"kernels_{real}.so"
    source.write_text(PRELUDE + code + LAUNCHER + wrappers, encoding="utf-8")
    tool = compiler()
    assert tool is not None
    options = ["-O1", "-shared", "-fPIC", "-std=c++17", "-ffp-contract=off", "-Wall", "-Werror"]
    defines = [f"-DREAL={real}", f"-DBLOCK={block}"]
    command = [tool, *options, *defines, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"kernels.cu does not compile for the CPU:\n{done.stderr}")
    return ctypes.CDLL(str(target))


def engine(
    code: str, real: str, block: int, folder: Path, backwards: bool = False
) -> dict[str, Engine]:
    """A table for RawModule.engine."""
    lib = library(code, real, block, folder)
    return {
        name: _function(getattr(lib, f"launch_{name}"), parameters, backwards)
        for name, parameters in signatures(code, real).items()
    }


def _function(launch: Any, parameters: list[Parameter], backwards: bool) -> Engine:
    kinds = {"long long": ctypes.c_longlong, "double": ctypes.c_double, "word64": ctypes.c_uint64}
    pointer = ctypes.c_void_p
    own = [pointer if p.pointee else kinds[p.type] for p in parameters]
    launch.argtypes = [ctypes.c_uint, ctypes.c_int, *own]
    launch.restype = None

    def run(grid: int, block: int, *args: Any) -> None:
        plain = [
            a.ctypes.data
            if isinstance(a, np.ndarray)
            else (int(a) if isinstance(a, np.uint64) else a)
            for a in args
        ]
        launch(grid, backwards, *plain)

    return run
