"""Event files for TensorBoard: RUN/tensorboard. Needs the extra `tensorboard`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygan.errors import OptionError

TAGS = {  # TensorBoard allows letters, digits and -/_. alone
    "d_loss": "loss/D",
    "g_loss": "loss/G",
    "d_real": "probability_of_real/x",
    "d_fake": "probability_of_real/fakes",
    "acc_real": "accuracy/x",
    "acc_fake": "accuracy/fakes",
    "penalty": "loss/penalty",
    "g_gradient": "gradient/G",
    "spread": "spread/fakes",
}
OF_A_CRITIC = {"d_real": "score/x", "d_fake": "score/fakes"}  # where D gives no probabilities


class EventFiles:
    """The event files of a run, one for each session.

    A session that starts at a step makes TensorBoard forget what an earlier one, which was killed,
    wrote about that step and later ones. `critic`: D's output is a score and no probability.
    Raises OptionError when tensorboardX is not installed.
    """

    def __init__(self, folder: Path, critic: bool = False) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise OptionError(
                "--tensorboard needs the package tensorboardX: pip install tensorboardX, or go on "
                "without it: --no-tensorboard"
            ) from None
        self._folder, self._make = folder, SummaryWriter
        self._tags = {**TAGS, **OF_A_CRITIC} if critic else TAGS
        self._writer: Any = None

    def open(self, step: int) -> None:
        """Begin a file whose first step is `step`."""
        suffix = f".{step:07d}"  # two sessions may begin in one second
        self._writer = self._make(str(self._folder), purge_step=step, filename_suffix=suffix)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step, each under its tag."""
        for name, value in values.items():
            self._writer.add_scalar(self._tags.get(name, name), value, step)

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """How the numbers of each array are spread."""
        for name, array in arrays.items():
            self._writer.add_histogram(name, array.ravel(), step)

    def grid(self, step: int, picture: np.ndarray) -> None:
        """A sample grid, uint8 (H, W, C)."""
        self._writer.add_image("samples", picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Hand what was written so far to the file."""
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
