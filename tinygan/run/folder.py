"""The run folder: where its files lie, its run.json, and who may write in it."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tinygan.errors import OptionError, TinyganError
from tinygan.run.atomic import TEMPORARY, cannot_write, remove_leftovers, set_aside, write_json

FORMAT = 1
TRIES = 10  # to lock a folder
Manifest = dict[str, Any]
# What those who read a run.json rely on; a part that is missing is taken as empty.
PARTS: dict[str, type] = {
    "options": dict,
    "recipe": dict,
    "data": dict,
    "backend": dict,
    "versions": dict,
    "sessions": list,
    "warnings": list,
}


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def losses(self) -> Path:
        return self.path / "losses.png"

    @property
    def animation(self) -> Path:
        return self.path / "samples.gif"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    def sample(self, step: int) -> Path:
        return self.samples / f"step_{step:07d}.png"

    def set_samples_aside(self, step: int) -> None:
        """Take those after `step`, from which a run now goes on, out of its animation."""
        for path in self.samples.glob("step_*.png"):
            named = re.fullmatch(r"step_(\d{7,})", path.stem)
            if named and int(named[1]) > step:
                set_aside(path)

    def refuse_used(self) -> None:
        """Raise OptionError unless the folder is new or empty: a run never overwrites another."""
        if self.manifest.exists():
            raise OptionError(
                f"{self.path} already holds a run: continue it with --resume {self.path}, "
                "or give another --out"
            )
        if self.path.exists() and not (self.path.is_dir() and self._is_empty()):
            raise OptionError(f"{self.path} is not an empty folder: give another --out")

    def _is_empty(self) -> bool:
        """Or has only what is left of a run that did not come to write its run.json."""
        left = set(self.path.glob(f".*run.json.*{TEMPORARY}"))
        rooms = (self.samples, self.checkpoints)
        left |= {room for room in rooms if room.is_dir() and not any(room.iterdir())}
        return left >= set(self.path.iterdir())

    def create(self) -> None:
        """Make the folder and its rooms, those that are missing."""
        try:
            for folder in (self.path, self.samples, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise TinyganError(cannot_write(self.path, problem)) from problem

    def clean(self) -> None:
        """Remove the temporary files of a killed process."""
        for folder in (self.path, self.samples, self.checkpoints):
            remove_leftovers(folder)

    def claim(self, manifest: Manifest) -> None:
        """Write the run.json of a new run; OptionError if another process was faster."""
        whole = self.path / f".run.json.{os.getpid()}.new{TEMPORARY}"
        try:
            write_json(whole, manifest)
            os.link(whole, self.manifest)  # unlike a rename, refuses where there is one
        except FileExistsError:
            self.refuse_used()
        except OSError:  # a file system without links
            self.write_manifest(manifest)
        finally:
            whole.unlink(missing_ok=True)

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.manifest, manifest)

    def read_manifest(self) -> Manifest:
        """The content of run.json. Raises OptionError when this is not the folder of a run."""
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise OptionError(f"{self.path} is not a run folder: it has no run.json") from None
        except (OSError, ValueError, RecursionError) as problem:
            raise OptionError(f"cannot read {self.manifest}: {problem}") from problem
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise OptionError(
                f"{self.manifest}: expected run format {FORMAT}, given "
                f"{manifest.get('format') if isinstance(manifest, dict) else manifest!r}"
            )
        for name, kind in PARTS.items():
            if not isinstance(manifest.setdefault(name, kind()), kind):
                raise OptionError(f"{self.manifest} is damaged: {name!r} is no {kind.__name__}")
        if part := _unsound(manifest):
            raise OptionError(f"{self.manifest} is damaged: {part} is not what tinygan writes")
        return manifest


def _unsound(manifest: Manifest) -> str | None:
    """The first part, of those that are worked with, that is no number or no text; or None."""
    data = manifest["data"]
    shift, shape = data.get("shift", 0.0), data.get("shape")
    shifts = shift if isinstance(shift, list) else [shift]
    if isinstance(shift, list) and [len(shift)] != shape:
        return "'shift' of 'data'"
    for name in ("name", "sha256"):
        if not isinstance(data.get(name, ""), str):
            return f"{name!r} of 'data'"
    numbers = {
        "a step in 'warnings'": [_at(w, "step", None) for w in manifest["warnings"]],
        "a time in 'sessions'": [_at(s, "seconds", 0) for s in manifest["sessions"]],
        "'scale' of 'data'": [data.get("scale", 1.0)],
        "'shift' of 'data'": shifts,
    }
    return next((what for what, each in numbers.items() if not all(map(_is_number, each))), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def _at(entry: Any, key: str, missing: Any) -> Any:
    return entry.get(key, missing) if isinstance(entry, dict) else missing


class FolderLock:
    """One writer at a time: the operating system frees the lock when its process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Raise TinyganError when another process writes in this folder."""
        for _ in range(TRIES):  # its owner may remove the file between our opening and our locking
            if self._try():
                return
        raise TinyganError(f"{self._path} does not stay where it is: try again")

    def _try(self) -> bool:
        """Whether the lock is ours now, on the file that bears its name."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return True
        try:
            file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as problem:
            raise TinyganError(cannot_write(self._path, problem)) from problem
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise TinyganError(
                f"another process is training in {self._path.parent}: wait for it or stop it"
            ) from None
        if not self._is_there(file):
            file.close()
            return False
        self._file = file
        return True

    def _is_there(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # while it is still ours
            self._file.close()
            self._file = None
