"""What the log will say, kept on the device until it is read."""

from __future__ import annotations

from collections.abc import Callable

from tinygan.backend import Array, Backend
from tinygan.gan.algorithm1 import METRICS

ROWS = 16  # that wait on a device; where there is nothing to wait for each is read at once


class Readings:
    """METRICS of the steps that are logged: taken one by one, read many at a time: [gpu.5].

    To read is to wait until the device has done all that it was told; to take is not.
    """

    def __init__(self, measure: Callable[[], Array], backend: Backend) -> None:
        """`measure` gives the METRICS of the step just made, a row on the backend."""
        self._measure, self._backend = measure, backend
        rows = 1 if backend.instant else ROWS
        self._rows = backend.zeros((rows, len(METRICS)), "float64")
        self._steps: list[int] = []

    def take(self, step: int) -> None:
        """Measure the step just made; `read` before there are too many."""
        self._rows[len(self._steps)] = self._measure()
        self._steps.append(step)

    @property
    def full(self) -> bool:
        return len(self._steps) == len(self._rows)

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """(step, its METRICS) of all that were taken since the last time, as Python numbers."""
        if not self._steps:
            return []
        rows = self._backend.to_host(self._rows[: len(self._steps)]).tolist()
        readings = [dict(zip(METRICS, row, strict=True)) for row in rows]
        steps, self._steps = self._steps, []
        return list(zip(steps, readings, strict=True))
