"""The progress bar: step, epoch, losses, D's accuracy, samples a second, time left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm

NARROW = 110  # columns below which there is no room for the bar itself
SHORT = "step {n}/{total} {elapsed}<{remaining}{postfix}"
FORMAT = "step {n}/{total} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A tqdm bar on stderr; in a log file (no terminal) it writes a line's worth every 10 s."""

    def __init__(
        self,
        start: int,
        total: int,
        samples_per_step: int,
        shown: bool = True,
        kind: str = "images",
    ) -> None:
        shown = shown and sys.stderr is not None  # None where the caller closed it
        terminal = shown and sys.stderr.isatty()
        columns = os.get_terminal_size(sys.stderr.fileno()).columns if terminal else 0
        self._narrow = 0 < columns < NARROW
        self._bar: tqdm[int] = tqdm(
            total=total,
            initial=start,
            bar_format=SHORT if self._narrow else FORMAT,
            mininterval=0.2 if terminal else 10.0,
            ascii=None if terminal else True,
            dynamic_ncols=columns > 0,  # some terminals say that they are 0 wide
            ncols=None if columns else 120,
            disable=not shown,
            file=sys.stderr,
        )
        self._samples_per_step, self._kind = samples_per_step, kind
        self._step, self._time = start, time.perf_counter()
        self._rate: float | None = None

    def show(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Set the words behind the bar from the metrics of `step`."""
        now = time.perf_counter()
        if step > self._step and now > self._time:
            rate = (step - self._step) * self._samples_per_step / (now - self._time)
            self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
        self._step, self._time = step, now
        self._bar.set_postfix_str(self._words(epoch, values), refresh=False)

    def _words(self, epoch: int, values: Mapping[str, float]) -> str:
        real, fake = values["acc_real"], values["acc_fake"]
        if self._narrow:
            losses = f"D {values['d_loss']:.2f} G {values['g_loss']:.2f}"
            return f"epoch {epoch} {losses} D acc {real:.0%}/{fake:.0%} {self._rate or 0:,.0f}/s"
        return (
            f"epoch {epoch}, D {values['d_loss']:.3f}, G {values['g_loss']:.3f}, "
            f"D accuracy real {real:.0%} fake {fake:.0%}, "
            f"{self._rate or 0:,.0f} {self._kind}/s"
        )

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is written to the terminal."""
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
