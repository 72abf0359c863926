"""The frame around a training loop: log, pictures, checkpoints, signals, progress."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np

from tinygan.errors import CheckpointError, NonFiniteError
from tinygan.run import checkpoint as checkpoints
from tinygan.run.checkpoint import Checkpoint, Stateful
from tinygan.run.folder import FolderLock, Manifest, RunFolder
from tinygan.run.interrupt import StopSignals
from tinygan.run.log import Arrays, Log
from tinygan.run.metrics_file import read_metrics
from tinygan.run.pictures import write_animation
from tinygan.run.progress import Progress
from tinygan.run.readings import Readings
from tinygan.run.schedule import Schedule

SHOWN_EVERY_SECONDS = 1.0  # measurements wait on a device no longer, though reading them costs time
CURVES_EVERY_SECONDS = 60.0  # losses.png is drawn anew at a checkpoint, but no more often


class Run:
    """A run folder and the steps still to do in it.

    ``for step in run.steps(): ...`` yields 1-based step numbers; the body makes the step. Around it
    the run reads metrics, writes samples and checkpoints as the schedule says, and stops in good
    order at Ctrl-C, SIGTERM or a non-finite value. A monitor reads the metrics, too, and warns of a
    game that goes wrong.

    schedule        how many steps, and what is done how often
    parts           what a checkpoint keeps, by name ("G", "D", "G_opt", ...)
    readings        takes the METRICS of the step just made, for the log
    sample          what G makes of a fixed noise batch, as NumPy has it
    draw            (path, samples) -> picture: makes one PNG of them and returns its pixels, uint8
    diagnose        words for the first non-finite value in the networks, or None
    tensorboard     also write event files; `histograms` gives arrays whose spread they show
    resume          go on in `folder` from its newest checkpoint, or from the one of `from_step`

    Raises OptionError when the folder holds another run, CheckpointError when the checkpoint to go
    on from is damaged or of another architecture; neither changes anything on the disk.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        parts: Mapping[str, Stateful],
        *,
        schedule: Schedule,
        readings: Readings,
        sample: Callable[[], np.ndarray],
        draw: Callable[[Path, np.ndarray], np.ndarray],
        diagnose: Callable[[], str | None],
        resume: bool = False,
        from_step: int | None = None,
        progress: bool = True,
        tensorboard: bool = False,
        histograms: Arrays = dict,
    ) -> None:
        self.folder = RunFolder(Path(folder))
        self.manifest = manifest
        self.start = 0  # steps already made
        self._goes_back = from_step is not None  # and may go another way
        self._parts = parts
        self._schedule = schedule
        self._readings, self._diagnose = readings, diagnose
        self._sample, self._draw = sample, draw
        self._show_progress = progress
        self._log = Log(self.folder, manifest, schedule, tensorboard)
        self._lock = FolderLock(self.folder.path)
        self._read_at = -math.inf
        self._began = math.nan
        self._earlier = list(manifest.get("sessions", []))
        self._histograms = histograms
        if not resume:
            self.folder.refuse_used()
            self.folder.create()
            self.folder.claim(manifest)
        elif not self._died_before_its_first_checkpoint():
            chosen = checkpoints.newest_checkpoint(self.folder.checkpoints, from_step)
            checkpoints.load_checkpoint(chosen, parts)
            self.start = chosen.step

    def steps(self) -> Iterator[int]:
        """Yield the numbers of the steps still to do, 1-based, up to the last.

        Raises NonFiniteError when a metric or a parameter is not finite (the last good checkpoint
        stays), TinyganError when the disk is full, SystemExit(130 or 143) after a signal.
        """
        total = self._schedule.total_steps
        if self.start >= total:
            self._nothing_to_do()
            return
        signals = StopSignals()
        self._lock.acquire()
        self._greet()
        kind = str((self.manifest.get("recipe") or {}).get("kind", "images"))
        bar = Progress(
            self.start, total, self._schedule.samples_per_step, self._show_progress, kind
        )
        self._began, step = time.perf_counter(), self.start
        try:
            signals.install()
            self._open()
            # NumPy's warnings would say the same as NonFiniteError, earlier and less clearly.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                for step in range(self.start + 1, total + 1):
                    yield step
                    saved = self._after(step, bar)
                    if signals.requested is not None:  # perhaps since a moment ago, in a picture
                        if not saved:
                            self._report(bar)
                            self._check_finite(step, {})
                            self._checkpoint(step)
                        break
            self._record_session(step)
            self._log.draw_curves()
            if step == total:
                write_animation(self.folder.samples, self.folder.animation)
        finally:
            bar.close()
            self._log.close()
            self._lock.release()
            signals.restore()
        if step < total:
            say(f"stopped after step {step}; resume with: {resume_command(self.folder.path)}")
        else:
            say(f"finished {step} steps: {self.folder.path}")
        if signals.requested is not None:
            raise SystemExit(signals.exit_code)

    def _died_before_its_first_checkpoint(self) -> bool:
        """Whether the run was cut short (by a full disk, say) so early that nothing is lost."""
        if checkpoints.list_checkpoints(self.folder.checkpoints):
            return False
        return not self.folder.metrics.exists() or not read_metrics(self.folder.metrics)["step"]

    def _open(self) -> None:
        """Make the folder ready for step start + 1."""
        self.folder.create()
        self.folder.clean()
        checkpoints.clean(self.folder.checkpoints)
        if self.start == 0 and not checkpoints.list_checkpoints(self.folder.checkpoints):
            self._log.begin()
            self._write_samples(0)
            self._checkpoint(0)  # a run that is killed early can be resumed, too
            return
        checkpoints.set_aside_later(self.folder.checkpoints, self.start)
        if self._goes_back:  # else its pictures will be drawn again, the same
            self.folder.set_samples_aside(self.start)
        self._log.go_on(self.start)
        self.folder.write_manifest(self.manifest)  # --steps may have changed

    def _greet(self) -> None:
        where = self.manifest.get("backend") or {}
        going = f"step {self.start + 1} to {self._schedule.total_steps}"
        say(f"{self.folder.path}: {going} on {where.get('reason') or 'this machine'}")

    def _after(self, step: int, bar: Progress) -> bool:
        """Log, draw and save what is due at `step`; whether it was saved."""
        if self._schedule.logs(step) or step == self._schedule.total_steps:
            self._readings.take(step)
        drawing, saving = self._schedule.samples(step), self._schedule.saves(step)
        awaited = time.monotonic() - self._read_at > SHOWN_EVERY_SECONDS
        if drawing or saving or awaited or self._readings.full:
            self._report(bar)
        if drawing or saving:
            self._check_finite(step, {})
        if drawing:
            self._write_samples(step)
        if saving:
            self._checkpoint(step)
        bar.advance()
        return saving

    def _report(self, bar: Progress) -> None:
        """Read what was measured, and tell the monitor, the log and whoever looks on."""
        readings = self._readings.read()
        for step, values in readings:
            for words in self._log.see(step, values):
                with bar.aside():
                    say(f"step {step}: warning: {words}")
            self._check_finite(step, values)
            self._log.write(step, values)
        if readings:
            step, values = readings[-1]
            bar.show(step, self._schedule.epoch(step), values)
        self._read_at = time.monotonic()

    def _check_finite(self, step: int, values: Mapping[str, float]) -> None:
        bad = [f"{name} = {value:g}" for name, value in values.items() if not math.isfinite(value)]
        where = self._diagnose() if bad or not values else None
        if not bad and where is None:
            return
        first = (
            f"the first layer with a non-finite value is {where}"
            if where
            else "all weights are finite"
        )
        raise NonFiniteError(
            f"step {step}: {', '.join(bad) or 'training diverged'}; {first}. "
            f"Stopped; {self._last_good()}. A smaller --lr in a new run may help"
        )

    def _last_good(self) -> str:
        kept = checkpoints.list_checkpoints(self.folder.checkpoints)
        return (
            f"the last good checkpoint is {kept[-1].tensor_path}" if kept else "no checkpoint yet"
        )

    def _write_samples(self, step: int) -> None:
        picture = self._draw(self.folder.sample(step), self._sample())
        self._log.show(step, picture, self._histograms)

    def _checkpoint(self, step: int) -> None:
        self._log.sync()
        about = {"preset": self.manifest.get("preset"), "versions": self.manifest.get("versions")}
        try:
            checkpoints.save_checkpoint(self.folder.checkpoints, step, self._parts, about)
        except CheckpointError as problem:
            raise CheckpointError(f"{problem}; {self._last_good()}") from problem
        keep_last, keep_every = self._schedule.keep_last, self._schedule.keep_every
        checkpoints.prune(self.folder.checkpoints, keep_last, keep_every)
        if step:
            self._record_session(step)  # a process that is killed says nothing more
            self._log.draw_curves(unless_within=CURVES_EVERY_SECONDS)

    def _record_session(self, step: int) -> None:
        """Write to run.json which steps this process has made and how long they took."""
        session = {
            "first_step": self.start + 1,
            "last_step": step,
            "seconds": round(time.perf_counter() - self._began, 1),
            "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        self.manifest["sessions"] = [*self._earlier, session]
        self.folder.write_manifest(self.manifest)

    def _nothing_to_do(self) -> None:
        say(
            f"{self.folder.path} is already at step {self.start} of {self._schedule.total_steps}: "
            "nothing to do (--steps and --epochs count the total)"
        )
        # Perhaps it was killed between its last step and its pictures.
        saved = Checkpoint(self.folder.checkpoints, self.start).json_path
        if _older(self.folder.losses, saved):
            self._log.draw_curves()
        if _older(self.folder.animation, saved):
            write_animation(self.folder.samples, self.folder.animation)


def _older(picture: Path, saved: Path) -> bool:
    """Whether it is not there, or was drawn before `saved` was written."""
    return not picture.exists() or picture.stat().st_mtime_ns < saved.stat().st_mtime_ns


def resume_command(folder: Path) -> str:
    """The command line that continues the run in `folder`."""
    return shlex.join(["python", sys.argv[0], "--resume", str(folder)])


def say(words: str) -> None:
    """One line for the person at the terminal, apart from whatever goes to stdout."""
    print(words, file=sys.stderr, flush=True)
