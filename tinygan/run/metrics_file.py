"""metrics.csv: one row per reading, flushed as it goes, the same bytes after a resume."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from tinygan.errors import TinyganError
from tinygan.gan.algorithm1 import METRICS
from tinygan.run.atomic import cannot_write, write_bytes

OLDER = ("d_loss", "g_loss", "d_real", "d_fake", "acc_real", "acc_fake")  # all that there once was
HEADER = ",".join(("step", "epoch", *METRICS))
OLDER_HEADER = ",".join(("step", "epoch", *OLDER))
UNKNOWN = ",nan" * (len(METRICS) - len(OLDER))


class MetricsFile:
    """The open metrics.csv of a run.

    There is no clock in it, so that a resumed run writes what a straight one would have written.
    Nine significant digits name every float32 exactly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def start(self) -> None:
        """Begin a new file with its header."""
        write_bytes(self.path, (HEADER + "\n").encode())

    def rewind(self, step: int, regular: Callable[[int], bool]) -> None:
        """Keep the rows up to `step` that a straight run would have; drop the rest.

        A last row that stands only because an earlier, shorter run ended there is not `regular`.
        What a file of an older version does not know is nan from now on.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            lines = []
        except (OSError, UnicodeDecodeError) as problem:
            raise TinyganError(f"cannot read {self.path}: {problem}") from problem
        older = bool(lines) and lines[0] == OLDER_HEADER + "\n"
        if lines and not older and lines[0] != HEADER + "\n":
            raise TinyganError(f"{self.path} does not start with the columns {HEADER}")
        kept = [HEADER + "\n"]
        for line in lines[1:]:
            number = line.split(",", 1)[0]
            whole = line.endswith("\n") and number.isdigit()  # the last one may be torn
            if whole and int(number) <= step and regular(int(number)):
                kept.append(line.rstrip("\n") + UNKNOWN + "\n" if older else line)
        write_bytes(self.path, "".join(kept).encode())

    def append(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write one row and flush it."""
        row = ",".join([str(step), str(epoch), *(f"{values[name]:.9g}" for name in METRICS)])
        try:
            if self._file is None:
                self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
            self._file.write(row + "\n")
            self._file.flush()
        except OSError as problem:
            raise TinyganError(cannot_write(self.path, problem)) from problem

    def sync(self) -> None:
        """Make the rows safe on the disk: done before a checkpoint that follows them."""
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as problem:
                raise TinyganError(cannot_write(self.path, problem)) from problem

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk refused was reported already
                self._file.close()
            self._file = None


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a metrics.csv by name; a torn last row is left out.

    Columns that a file of an older version does not have are nan. Raises TinyganError when the
    file cannot be read.
    """
    columns: dict[str, list[float]] = {name: [] for name in HEADER.split(",")}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.DictReader(line for line in file if line.endswith("\n"))
            older = table.fieldnames == OLDER_HEADER.split(",")
            for row in table:
                for name, column in columns.items():
                    column.append(math.nan if older and name not in row else float(row[name]))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as problem:
        raise TinyganError(f"cannot read {path}: {problem}") from problem
    return columns
