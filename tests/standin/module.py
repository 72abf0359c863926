"""The stand-in's RawModule: reads signatures from CUDA source and checks every launch by them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from standin import kernels
from standin.capture import launch
from standin.device_array import ndarray

SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
POINTERS = {
    "unsigned int*": "uint32",
    "unsigned char*": "uint8",
    "long long*": "int64",
    "float*": "float32",
    "double*": "float64",
}
# A CuPy kernel takes whatever bytes an argument has: these are the types that arrive right.
SCALARS = {"long long": int, "double": float, "word64": np.uint64}

Engine = Callable[..., None]


class Parameter(NamedTuple):
    type: str  # "const float*", "long long", ...
    name: str

    @property
    def pointee(self) -> str | None:
        return POINTERS.get(self.type.removeprefix("const "))

    @property
    def read_only(self) -> bool:
        return self.type.startswith("const ")


def signatures(code: str, real: str) -> dict[str, list[Parameter]]:
    """The parameters of every kernel in the source, by its name."""
    found = {}
    for name, text in SIGNATURE.findall(code):
        words = [" ".join(part.split()).rsplit(" ", 1) for part in text.split(",")]
        found[name] = [Parameter(kind.replace("REAL", real), name) for kind, name in words]
    return found


class RawModule:
    """Looks a kernel up in `engine`, a table name -> function(threads, block, *arguments)."""

    engine: dict[str, Engine] | None = None  # None: kernels.EMULATIONS

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        defines = dict(option[2:].split("=") for option in options if option.startswith("-D"))
        self.real, self.block = defines["REAL"], int(defines["BLOCK"])
        self.code, self.signatures = code, signatures(code, self.real)

    def get_function(self, name: str) -> RawKernel:
        if name not in self.signatures:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel(self, name)


class RawKernel:
    def __init__(self, module: RawModule, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, grid: Any, block: Any, args: tuple[Any, ...]) -> None:
        assert all(isinstance(a, tuple) for a in (grid, block, args))
        assert 1 <= grid[0] < 1 << 31, f"{self.name}: a grid of {grid[0]} blocks"
        assert block == (self.module.block,), f"{self.name}: a block of {block} threads"
        parameters = self.module.signatures[self.name]
        if len(args) != len(parameters):
            raise TypeError(f"{self.name} takes {len(parameters)} arguments, got {len(args)}")
        host = [self._host(a, p) for a, p in zip(args, parameters, strict=True)]
        run = (self.module.engine or kernels.EMULATIONS)[self.name]
        memories = [a._memory for a in args if isinstance(a, ndarray)]
        launch(self.name, lambda: run(grid[0], block[0], *host), memories)

    def _host(self, value: Any, parameter: Parameter) -> Any:
        where = f"{self.name}: {parameter.type} {parameter.name}"
        if parameter.pointee is None:
            if type(value) is not SCALARS[parameter.type]:
                raise TypeError(f"{where} cannot be {type(value).__name__}")
            return value
        if not isinstance(value, ndarray):
            raise TypeError(f"{where} must be a device array, got {type(value)}")
        if value.dtype != parameter.pointee:
            raise TypeError(f"{where} is given an array of {value.dtype}")
        if not value.flags.c_contiguous:
            raise TypeError(f"{where} is given a strided view")
        flat = value._host.reshape(-1)
        if parameter.read_only:
            flat = flat.view()
            flat.flags.writeable = False
        return flat
