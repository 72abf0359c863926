"""Ctrl-C and SIGTERM: remembered during a step, acted upon at its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class StopSignals:
    """While installed, the first SIGINT or SIGTERM is only noted; a second one aborts at once.

    `requested` is the number of the signal, or None. Signals can be handled in the main thread
    only: elsewhere this does nothing.
    """

    HANDLED = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested: int | None = None
        self._old: dict[int, Callable[..., Any] | int | None] = {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in self.HANDLED}

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.requested or 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            self.requested = number
            self.restore()
            raise SystemExit(self.exit_code)
        self.requested = number
        if sys.stderr is None:  # closed by the caller: 2 may by now be any file of ours
            return
        with contextlib.suppress(OSError):  # not print(): a handler may interrupt another print
            os.write(2, b"\nfinishing this step, then a checkpoint (again: stop at once)\n")
