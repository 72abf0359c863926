"""Writing files whole or not at all: a temporary file beside the target, then os.replace."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

from tinygan.errors import TinyganError

TEMPORARY = ".tmp"


def write_bytes(path: Path, content: bytes, error: type[TinyganError] = TinyganError) -> None:
    """Write `content` to `path` atomically: readers see the old file or the new one, never half.

    Raises `error` with one line (what could not be written, why, what to do) when the disk is full
    or the folder cannot be written to; nothing partial is left behind, the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the name
        os.replace(temporary, path)
    except OSError as problem:
        raise error(cannot_write(path, problem)) from problem
    finally:  # also when a second Ctrl-C lands in the middle of a write
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(
    path: Path,
    content: Mapping[str, object] | list[object],
    error: type[TinyganError] = TinyganError,
) -> None:
    """Write a JSON file atomically; NaN and infinity are refused, since JSON has none.

    Bytes of a path that are no text, which Python has as lone surrogates, become JSON's escapes.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"), error)


def set_aside(path: Path) -> None:
    """Rename a file, where there is one, out of the way of a run that goes another way."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".set-aside"))


def cannot_write(path: Path, problem: OSError) -> str:
    """One line for an OSError met while writing `path`."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: cannot write {path}; free some space, then resume or start again"
    if problem.errno == errno.ENOENT and not path.parent.exists():
        return f"cannot write {path}: there is no folder {path.parent}; make it first"
    return f"cannot write {path}: {problem.strerror or problem}"


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files of a process that was killed while it wrote."""
    leftovers = sorted(folder.glob(f".*{TEMPORARY}"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers
