"""The numbers of a run: metrics.csv, event files, losses.png, and the monitor that reads them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from tinygan.gan.algorithm1 import METRICS
from tinygan.gan.monitor import Monitor
from tinygan.gan.objectives import CROSS_ENTROPIES
from tinygan.run.folder import Manifest, RunFolder
from tinygan.run.losses import write_curves
from tinygan.run.metrics_file import MetricsFile, read_metrics
from tinygan.run.schedule import Schedule
from tinygan.run.tensorboard import EventFiles

Arrays = Callable[[], Mapping[str, np.ndarray]]  # by name


class Log:
    """What a run writes of its metrics, and what the monitor says of them."""

    def __init__(
        self, folder: RunFolder, manifest: Manifest, schedule: Schedule, tensorboard: bool
    ) -> None:
        """Raises OptionError where event files are asked for and cannot be written."""
        self._folder, self._manifest, self._schedule = folder, manifest, schedule
        self._options = manifest.get("options") or {}
        self._objective = str(manifest.get("objective", "non-saturating"))
        bounded = bool(self._options.get("penalty") or self._options.get("clip"))
        self._monitor = Monitor(self._objective, bounded)
        self._csv = MetricsFile(folder.metrics)
        critic = self._objective not in CROSS_ENTROPIES
        self._events = EventFiles(folder.tensorboard, critic) if tensorboard else None
        self._drawn_at = -math.inf

    def begin(self) -> None:
        """Of a new run."""
        self._csv.start()
        if self._events:
            self._events.open(0)

    def go_on(self, step: int) -> None:
        """Behind `step`: forget what an earlier process wrote of later ones."""
        self._csv.rewind(step, self._schedule.logs)
        metrics = read_metrics(self._folder.metrics)
        for i, seen in enumerate(metrics["step"]):  # and was warned of; nothing is said again
            self._monitor.see(int(seen), {name: metrics[name][i] for name in METRICS})
        warnings = self._manifest.get("warnings", [])
        self._manifest["warnings"] = [w for w in warnings if w["step"] <= step]
        if self._events:
            self._events.open(step + 1)

    def see(self, step: int, values: Mapping[str, float]) -> list[str]:
        """The monitor's warnings at `step`, kept in run.json."""
        warnings = self._monitor.see(step, values)
        if warnings:
            known = self._manifest.get("warnings", [])
            new = [{"step": step, "warning": words} for words in warnings]
            self._manifest["warnings"] = [*known, *new]
            self._folder.write_manifest(self._manifest)
        return warnings

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step."""
        self._csv.append(step, self._schedule.epoch(step), values)
        if self._events:
            self._events.scalars(step, values)

    def show(self, step: int, picture: np.ndarray, arrays: Arrays) -> None:
        """A picture, and how the numbers of `arrays()` are spread: for the event files alone."""
        if self._events:
            self._events.grid(step, picture)
            self._events.histograms(step, arrays())

    def sync(self) -> None:
        """Make safe what was written: done before a checkpoint that follows it."""
        self._csv.sync()
        if self._events:
            self._events.flush()

    def draw_curves(self, unless_within: float = 0.0) -> None:
        """losses.png; not where it was drawn so few seconds ago."""
        if time.monotonic() - self._drawn_at < unless_within:
            return
        metrics = read_metrics(self._folder.metrics)
        if metrics["step"]:
            write_curves(
                self._folder.losses,
                metrics,
                halved=bool(self._manifest.get("halved", False)),
                objective=self._objective,
                real_target=float(self._options.get("real_target", 1.0)),
                title=str(self._manifest.get("preset", "")),
            )
        self._drawn_at = time.monotonic()

    def close(self) -> None:
        self._csv.close()
        if self._events:
            self._events.close()
