"""run.json: everything needed to repeat a run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import tinygan
from tinygan.backend.team import thread_count
from tinygan.data import PointSet
from tinygan.errors import DataError, OptionError
from tinygan.run.folder import FORMAT, Manifest
from tinygan.run.options import Options


class Examples(Protocol):
    """What is recorded of a data set."""

    @property
    def name(self) -> str: ...

    @property
    def examples(self) -> np.ndarray: ...


class Place(Protocol):
    """What is recorded of a backend."""

    name: str
    device: str
    reason: str


def make_manifest(options: Options, backend: Place, data: Examples) -> Manifest:
    """The content of run.json for a new run; for a resumed one the recorded, brought up to date.

    Raises DataError when the images are not those that the run was started with, OptionError when
    the backend is another one: a resumed run continues bit for bit or not at all.
    """
    about_data = describe_data(data)
    values = {**options.values(), "backend": backend.name}
    if values["data"] == "auto":
        values["data"] = "strokes" if data.name == "strokes" else "mnist"
    if options.recorded is not None:
        check_data(options.recorded["data"], about_data)
        _check_backend(options.recorded.get("backend"), backend)
        return {**options.recorded, "options": values}  # --steps may be new
    preset = options.preset
    return {
        "format": FORMAT,
        "preset": preset.name,
        "options": values,
        "recipe": recipe(preset),
        "objective": preset.objective,
        "halved": preset.halved,
        "seed": options.seed,
        "data": about_data,
        "backend": {
            "name": backend.name,
            "device": backend.device,
            "dtype": options.dtype,
            "precision": options.precision,
            "reason": backend.reason,
        },
        "versions": versions(backend.name),
        "machine": machine(),
        "git": git_state(),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "sessions": [],
    }


def recipe(preset: Any) -> dict[str, Any]:
    """The fields of a preset as JSON has them; of the functions that build G and D, the names."""
    fields = {f.name: getattr(preset, f.name) for f in dataclasses.fields(preset)}
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return getattr(value, "__name__", None) or str(value)


def describe_data(data: Examples) -> dict[str, Any]:
    """Name, number, shape and sha256 of the bytes of a data set's examples."""
    examples = np.ascontiguousarray(data.examples)
    scale = {}
    if isinstance(data, PointSet):  # the way back to the user's own numbers
        scale = {"shift": np.asarray(data.shift).tolist(), "scale": data.scale}
    return {
        **scale,
        "name": data.name,
        "images": len(examples),
        "shape": list(examples.shape[1:]),
        "sha256": hashlib.sha256(examples.data).hexdigest(),
    }


def versions(backend: str) -> dict[str, str]:
    """Versions of what computes: Python, tinygan, NumPy and, where it is used, CuPy."""
    found = {"python": platform.python_version(), "tinygan": tinygan.__version__}
    found["numpy"] = np.__version__
    for name in ("cupy", "cupy-cuda12x", "cupy-cuda13x") if backend == "cupy" else ():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """What floating-point sums may depend on: processor, its number, the BLAS and its settings."""
    built = np.show_config(mode="dicts")  # type: ignore[call-arg, unused-ignore]
    blas = (built or {}).get("Build Dependencies", {}).get("blas", {})
    names = ["OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    names += ["NVIDIA_TF32_OVERRIDE"]  # which goes over the head of --precision
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": thread_count(),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def processor() -> str:
    """The processor's name, or its family where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit and whether anything differs from it, when tinygan runs from a git checkout."""
    package = Path(__file__).resolve().parent.parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed, perhaps inside somebody's checkout that does not track it
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "--no-optional-locks", "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def check_data(recorded: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise DataError unless both descriptions are of the same examples."""
    if recorded.get("sha256") == given["sha256"]:
        return
    raise DataError(
        f"these are not the data the run was started with: recorded {_in_words(recorded)}, "
        f"given {_in_words(given)}; give the same --data-dir, or --data FILE"
    )


def _in_words(data: dict[str, Any]) -> str:
    return (
        f"{data.get('images')} of {data.get('name')} with sha256 {data.get('sha256', '')[:12]}..."
    )


def other_threads(recorded: Manifest) -> str | None:
    """Words for a resumed run that would go on with another number of threads, else None."""
    machine = recorded.get("machine")
    started, now = machine.get("threads") if isinstance(machine, dict) else None, thread_count()
    if started is None or now is None or started == now:
        return None
    return (
        f"note: this run was started with {started} thread(s) and goes on with {now}: sums then "
        f"agree to rounding, not bit for bit (OPENBLAS_NUM_THREADS={started} would keep them)"
    )


def _check_backend(recorded: object, backend: Place) -> None:
    if isinstance(recorded, dict) and recorded.get("name") != backend.name:
        raise OptionError(
            f"a run started on {recorded.get('name')} cannot be resumed on {backend.name}: "
            "the same draws and sums, bit for bit, need the same backend"
        )
