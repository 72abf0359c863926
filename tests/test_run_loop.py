"""The frame around training: resume to the byte, signals, NaN, a full disk, damaged checkpoints."""

from __future__ import annotations

import argparse
import errno
import io
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygan import get_backend
from tinygan.errors import CheckpointError, NonFiniteError, OptionError, TinyganError
from tinygan.run import Run, checkpoint
from tinygan.run.commands import info
from tinygan.run.folder import FolderLock, RunFolder
from tinygan.run.loop import say
from tinygan.run.metrics_file import OLDER_HEADER, read_metrics
from tinygan.run.pictures import write_grid
from tinygan.run.progress import Progress
from tinygan.run.readings import Readings
from tinygan.run.schedule import Schedule

MANIFEST = {"format": 1, "preset": "tiny", "halved": True, "objective": "non-saturating"}


class Part:
    """A stand-in for a network: its state is a function of all the steps it has made."""

    def __init__(self, width: int = 3) -> None:
        self.W = np.zeros((2, width), np.float32)
        self.t = np.zeros((), np.int64)

    def state(self) -> dict[str, np.ndarray]:
        return {"0.W": self.W.copy(), "t": self.t.copy()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        self.W[...], self.t[...] = state["0.W"], state["t"]

    def advance(self, step: int) -> None:
        self.W += np.sin(np.float32(step) + self.W)
        self.t += 1


class Training:
    """A tiny training program around Run."""

    def __init__(self, folder: Path, total: int, *, resume: bool = False, **rest: object) -> None:
        self.part = Part(int(rest.pop("width", 3)))  # type: ignore[call-overload]
        self.nan_from = rest.pop("nan_from", None)
        self.copies_from = rest.pop("copies_from", math.inf)  # the monitor's business
        self.step = 0
        often = {"sample_every": 10, "checkpoint_every": 20, "log_every": 10}
        often |= {f.name: rest.pop(f.name) for f in fields(Schedule) if f.name in rest}
        self.run = Run(
            folder,
            {**MANIFEST, "sessions": rest.pop("sessions", [])},
            {"G": self.part},
            schedule=Schedule(total, steps_per_epoch=7, samples_per_step=4, **often),  # type: ignore[arg-type]
            readings=Readings(self.measure, get_backend("numpy")),
            sample=lambda: np.tanh(np.resize(self.part.W, (4, 5, 5, 1))),
            draw=lambda path, images: write_grid(path, images, (2, 2), (-1.0, 1.0)),
            diagnose=lambda: None if np.isfinite(self.part.W).all() else "G layer 0 Dense: W",
            resume=resume,
            progress=False,
            **rest,  # type: ignore[arg-type]
        )

    def measure(self) -> np.ndarray:
        a = float(self.part.W[0, 0])
        spread = 0.5 if self.step < self.copies_from else 0.01
        return np.array([a, a / 3, 0.5, 0.25, 1.0, 0.0, 0.0, 1.0, spread])

    def go(self, signal_at: dict[int, int] | None = None) -> Training:
        for step in self.run.steps():
            self.step = step
            self.part.advance(step)
            if self.step == self.nan_from:
                self.part.W[0, 0] = np.nan
            if signal_at and self.step in signal_at:
                os.kill(os.getpid(), signal_at[self.step])
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny"


def waiting(training: Training, rows: int = 16) -> Training:
    """As on a device, where readings wait for one another."""
    readings = training.run._readings
    readings._rows = np.zeros((rows, readings._rows.shape[1]))
    return training


def steps_kept(folder: Path) -> list[int]:
    return sorted(int(p.stem[5:]) for p in (folder / "checkpoints").glob("*.json"))


def sessions_of(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "run.json").read_text())["sessions"]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time here; the tests of it are in test_run_files.py."""
    if request.function is not test_a_run_leaves_everything_it_promises:
        monkeypatch.setattr(
            "tinygan.run.log.write_curves", lambda path, *_, **__: path.write_bytes(b"drawn")
        )


def test_a_signal_while_a_picture_is_drawn_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    training = Training(folder, 50)
    draw = training.run._draw

    def interrupted(path: Path, samples: np.ndarray) -> np.ndarray:
        if path.stem.endswith("10"):
            os.kill(os.getpid(), signal.SIGINT)
        return draw(path, samples)

    training.run._draw = interrupted
    with pytest.raises(SystemExit):
        training.go()
    assert (folder / "checkpoints" / "step_0000010.safetensors").exists()
    assert Training(folder, 50, resume=True).run.start == 10


def test_a_run_leaves_everything_it_promises(folder: Path) -> None:
    training = Training(folder, 45).go()
    assert training.step == 45
    assert steps_kept(folder) == [20, 40, 45]
    rows = (folder / "metrics.csv").read_text().splitlines()
    columns = "step,epoch,d_loss,g_loss,d_real,d_fake,acc_real,acc_fake,penalty,g_gradient,spread"
    assert rows[0] == columns
    assert [r.split(",")[:2] for r in rows[1:]] == [
        ["1", "1"],
        ["10", "2"],
        ["20", "3"],
        ["30", "5"],
        ["40", "6"],
        ["45", "7"],
    ]
    grids = sorted(p.name for p in (folder / "samples").iterdir())
    assert grids == [f"step_{s:07d}.png" for s in (0, 10, 20, 30, 40, 45)]
    with Image.open(folder / "samples" / grids[0]) as grid:
        assert grid.size == (11, 11)  # two tiles of 5 and a gap of 1
    with Image.open(folder / "samples.gif") as animation:
        assert getattr(animation, "n_frames", 1) >= 2
    with Image.open(folder / "losses.png") as curves:
        assert min(curves.size) > 300
    (session,) = sessions_of(folder)
    assert (session["first_step"], session["last_step"]) == (1, 45)
    assert not list(folder.rglob(".*.tmp"))


def test_a_killed_process_has_said_how_long_its_kept_steps_took(folder: Path) -> None:
    killed = Training(folder, 80)
    for step in killed.run.steps():
        if step == 50:
            break  # without a word: its last checkpoint is of step 40
    Training(folder, 80, resume=True, sessions=sessions_of(folder)).go()
    first, second = sessions_of(folder)
    assert (first["first_step"], first["last_step"]) == (1, 40)
    assert (second["first_step"], second["last_step"]) == (41, 80)


@pytest.mark.parametrize("stop", [40, 45])
def test_a_resumed_run_equals_a_straight_one_to_the_byte(tmp_path: Path, stop: int) -> None:
    Training(tmp_path / "straight", 80).go()
    Training(tmp_path / "halves", stop).go()
    Training(tmp_path / "halves", 80, resume=True).go()
    straight, halves = snapshot(tmp_path / "straight"), snapshot(tmp_path / "halves")
    assert straight["metrics.csv"] == halves["metrics.csv"]
    for step in (60, 80):
        name = f"checkpoints/step_{step:07d}.safetensors"
        assert straight[name] == halves[name]
    assert straight["samples/step_0000080.png"] == halves["samples/step_0000080.png"]


def test_rows_after_the_checkpoint_of_a_killed_run_are_written_anew(tmp_path: Path) -> None:
    Training(tmp_path / "straight", 60).go()
    killed = Training(tmp_path / "killed", 60)
    for step in killed.run.steps():
        killed.part.advance(step)
        if step == 58:
            break  # nothing is saved after step 40, but step 50 is in metrics.csv
    with open(tmp_path / "killed" / "metrics.csv", "a") as file:
        file.write("59,9,0.1")  # a torn row
    stray = tmp_path / "killed" / "checkpoints" / ".step_0000060.json.99.tmp"
    stray.write_bytes(b"half")
    orphan = tmp_path / "killed" / "checkpoints" / "step_0000060.safetensors"
    orphan.write_bytes(b"half")
    resumed = Training(tmp_path / "killed", 60, resume=True)
    assert resumed.run.start == 40
    resumed.go()
    assert not stray.exists()
    names = ("metrics.csv", "checkpoints/step_0000060.safetensors")
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (
            tmp_path / "straight" / name
        ).read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_leaves_a_checkpoint(
    folder: Path, number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        Training(folder, 50).go(signal_at={13: number})
    assert stopped.value.code == code
    assert signal.getsignal(number) is before
    assert steps_kept(folder)[-1] == 13
    assert f"--resume {folder}" in capsys.readouterr().err
    straight = Training(folder.with_name("straight"), 50).go()
    resumed = Training(folder, 50, resume=True).go()
    assert np.array_equal(straight.part.W, resumed.part.W)
    assert (folder / "metrics.csv").read_bytes() == (
        folder.with_name("straight") / "metrics.csv"
    ).read_bytes()


def test_a_second_ctrl_c_stops_at_once(folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where a script started us behind a "&"
    training = Training(folder, 50)

    def body() -> Iterator[None]:
        for step in training.run.steps():
            training.part.advance(step)
            if step == 13:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("the second signal should have ended the step")
            yield

    with pytest.raises(SystemExit) as stopped:
        list(body())
    assert stopped.value.code == 130
    assert steps_kept(folder) == [0]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_non_finite_loss_stops_the_run_and_names_layer_and_checkpoint(folder: Path) -> None:
    with pytest.raises(NonFiniteError) as stopped:
        Training(folder, 50, nan_from=27).go()
    message = str(stopped.value)
    assert "step 30" in message
    assert "d_loss = nan" in message
    assert "G layer 0 Dense: W" in message
    assert "step_0000020" in message
    assert "\n" not in message
    assert steps_kept(folder) == [0, 20]
    assert "nan" not in (folder / "metrics.csv").read_text()


def test_a_non_finite_weight_never_reaches_a_checkpoint(folder: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 20: training diverged.*G layer 0 Dense: W"):
        Training(folder, 50, nan_from=12, log_every=1000).go()
    assert steps_kept(folder) == [0]


def test_a_full_disk_is_one_error_and_loses_no_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(folder, 50, sample_every=1000)
    real = os.fsync

    def full(descriptor: int) -> None:
        log = folder / "metrics.csv"
        if training.step == 40 and not os.path.samestat(os.fstat(descriptor), log.stat()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as stopped:
        training.go()
    message = str(stopped.value)
    assert "disk is full" in message
    assert "step_0000040" in message
    assert "last good checkpoint is" in message
    assert "step_0000020" in message
    assert not list(folder.rglob(".*.tmp"))
    assert not list(folder.rglob("step_0000040*"))
    monkeypatch.undo()
    assert Training(folder, 50, resume=True).run.start == 20


def test_a_disk_full_at_the_first_write_leaves_a_folder_to_start_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TinyganError, match="resume or start again"):
        Training(folder, 20)
    monkeypatch.undo()
    assert Training(folder, 20).go().step == 20


def test_of_two_that_start_at_once_one_gets_the_folder(folder: Path) -> None:
    """Both have seen it empty."""
    place = RunFolder(folder)
    place.create()
    place.claim({"format": 1, "preset": "the first"})
    with pytest.raises(OptionError, match="already holds a run"):
        place.claim({"format": 1, "preset": "the second"})
    assert place.read_manifest()["preset"] == "the first"


@pytest.mark.parametrize("left", [".run.json.4711.new.tmp", "..run.json.4711.new.tmp.4711.tmp"])
def test_a_process_killed_in_its_first_write_leaves_a_folder_to_start_in(
    folder: Path, left: str
) -> None:
    RunFolder(folder).create()
    (folder / left).write_text('{"format"')
    assert Training(folder, 20).go().step == 20
    assert not list(folder.glob(".*.tmp"))


def test_a_file_system_without_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert Training(folder, 20).go().step == 20


@pytest.mark.parametrize("how", ["truncated", "tampered", "missing", "json", "nested"])
def test_a_damaged_checkpoint_is_refused_and_the_way_back_named(folder: Path, how: str) -> None:
    Training(folder, 40).go()
    path = folder / "checkpoints" / "step_0000040.safetensors"
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[:-5])
    elif how == "tampered":
        content[-1] ^= 1
        path.write_bytes(content)
    elif how == "missing":
        path.unlink()
    elif how == "nested":
        path.with_suffix(".json").write_text(100_000 * "[")
    else:
        path.with_suffix(".json").write_text('{"format": 1, "step"')
    before = snapshot(folder)
    with pytest.raises(CheckpointError) as refused:
        Training(folder, 60, resume=True)
    assert "step_0000040" in str(refused.value)
    assert "--checkpoint 20" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert snapshot(folder) == before
    straight = Training(folder.with_name("straight"), 60).go()
    resumed = Training(folder, 60, resume=True, from_step=20).go()
    assert np.array_equal(straight.part.W, resumed.part.W)
    assert list((folder / "checkpoints").glob("step_0000040.json.set-aside"))
    assert steps_kept(folder) == [20, 40, 60]


def test_a_run_that_goes_another_way_leaves_no_pictures_of_the_first(folder: Path) -> None:
    Training(folder, 60).go()
    Training(folder, 30, resume=True, from_step=20).go()
    names = sorted(path.name for path in (folder / "samples").iterdir())
    assert names[-1] == "step_0000060.png.set-aside"
    assert max(name for name in names if name.endswith(".png")) == "step_0000030.png"


def test_a_lock_on_a_file_that_is_gone_is_no_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder.mkdir(parents=True)
    real, late = fcntl.flock, [True]

    def between(file: object, how: int) -> None:  # its owner ends before we lock what we opened
        if late and late.pop():
            (folder / ".lock").unlink()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", between)
    first = FolderLock(folder)
    first.acquire()
    with pytest.raises(TinyganError, match="another process is training"):
        FolderLock(folder).acquire()
    first.release()


def test_another_architecture_is_refused_before_anything_changes(folder: Path) -> None:
    Training(folder, 20).go()
    before = snapshot(folder)
    with pytest.raises(CheckpointError, match=r"G/0\.W: expected shape \(2, 4\), given \(2, 3\)"):
        Training(folder, 40, resume=True, width=4)
    assert snapshot(folder) == before


def test_another_precision_is_refused(folder: Path) -> None:
    Training(folder, 20).go()
    part = Part()
    part.W = part.W.astype(np.float64)
    newest = checkpoint.newest_checkpoint(folder / "checkpoints")
    with pytest.raises(CheckpointError, match=r"G/0\.W: expected float64, given float32"):
        checkpoint.load_checkpoint(newest, {"G": part})


def test_a_removed_samples_folder_is_made_again(folder: Path) -> None:
    Training(folder, 20).go()
    shutil.rmtree(folder / "samples")
    Training(folder, 40, resume=True).go()
    assert (folder / "samples" / "step_0000040.png").exists()


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(folder: Path) -> None:
    Training(folder, 20)  # has made its folder, and no step
    straight = Training(folder.with_name("straight"), 20).go()
    assert np.array_equal(Training(folder, 20, resume=True).go().part.W, straight.part.W)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointError, match="nothing to go on from"):
        Training(folder, 40, resume=True)


def test_old_checkpoints_go_except_every_mth(folder: Path) -> None:
    Training(folder, 100, checkpoint_every=10, keep_last=2, keep_every=30).go()
    assert steps_kept(folder) == [30, 60, 90, 100]


def test_a_finished_run_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Training(folder, 20).go()
    long_ago = (folder / "checkpoints" / "step_0000020.json").stat().st_mtime_ns - 1
    for old in ("samples.gif", "losses.png"):  # as a run killed after its last step leaves them
        (folder / old).write_bytes(b"of an earlier step")
        os.utime(folder / old, ns=(long_ago, long_ago))
    before = (folder / "metrics.csv").read_bytes()
    again = Training(folder, 20, resume=True).go()
    assert again.step == 0
    assert "already at step 20 of 20: nothing to do" in capsys.readouterr().err
    assert (folder / "metrics.csv").read_bytes() == before
    for drawn in ("samples.gif", "losses.png"):
        assert (folder / drawn).read_bytes() != b"of an earlier step"


def test_what_is_drawn_already_is_left_alone(folder: Path) -> None:
    """One may have removed a few grids since, or made the folder read-only."""
    Training(folder, 20).go()
    (folder / "samples" / "step_0000010.png").unlink()
    (folder / "metrics.csv").unlink()
    before = snapshot(folder)
    Training(folder, 20, resume=True).go()
    assert snapshot(folder) == before


def test_a_folder_in_use_is_never_overwritten(folder: Path) -> None:
    Training(folder, 20).go()
    with pytest.raises(OptionError, match=r"already holds a run.*--resume"):
        Training(folder, 20)
    other = folder.with_name("letters")
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(OptionError, match="not an empty folder"):
        Training(other, 20)


def test_two_processes_cannot_train_in_one_folder(folder: Path) -> None:
    first = Training(folder, 20)
    steps = first.run.steps()
    next(steps)
    with pytest.raises(TinyganError, match="another process is training"):
        Training(folder, 20, resume=True).go()
    steps.close()  # type: ignore[attr-defined]
    Training(folder, 20, resume=True).go()


def test_an_early_death_can_be_resumed(folder: Path) -> None:
    training = Training(folder, 20)
    next(iter(training.run.steps()))
    assert Training(folder, 20, resume=True).run.start == 0


# ---- the monitor -------------------------------------------------------------------------------

COLLAPSING = {"copies_from": 200, "sample_every": 1000, "checkpoint_every": 400}
SAID = 210 + 1000  # three of five rows show it from step 220 on, ten steps after the row before


def warnings_of(folder: Path) -> list[dict[str, object]]:
    return list(json.loads((folder / "run.json").read_text()).get("warnings", []))


class Recorded(Training):
    """As a training program does it, a resumed run starts from the manifest of its run.json."""

    def __init__(self, folder: Path, total: int, **rest: object) -> None:
        super().__init__(folder, total, **rest)  # type: ignore[arg-type]
        if rest.get("resume"):
            self.run.manifest.update(json.loads((folder / "run.json").read_text()))


def test_a_warning_is_said_once_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Recorded(folder, 1500, **COLLAPSING).go()
    (kept,) = warnings_of(folder)
    said = [line for line in capsys.readouterr().err.splitlines() if ": warning: " in line]
    assert said == [f"step {kept['step']}: warning: {kept['warning']}"]
    assert kept["step"] == SAID
    assert "collapsed onto few modes" in str(kept["warning"])


@pytest.mark.parametrize("stop", [400, 1300])  # before the warning, and behind it
def test_a_resumed_run_warns_as_a_straight_one(
    tmp_path: Path, stop: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Recorded(tmp_path / "straight", 1500, **COLLAPSING).go()
    Recorded(tmp_path / "halves", stop, **COLLAPSING).go()
    Recorded(tmp_path / "halves", 1500, resume=True, **COLLAPSING).go()
    assert warnings_of(tmp_path / "straight") == warnings_of(tmp_path / "halves") != []
    assert capsys.readouterr().err.count(": warning: ") == 2  # one of each run


def test_steps_that_are_made_again_are_warned_of_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was undone is taken back: run.json keeps one warning, the terminal shows each."""
    killed = Recorded(folder, 2000, **COLLAPSING)
    for step in killed.run.steps():
        killed.step = step
        killed.part.advance(step)
        if step == 1290:
            break  # the newest checkpoint is that of step 1200
    Recorded(folder, 1500, resume=True, **COLLAPSING).go()
    assert len(warnings_of(folder)) == 1
    assert capsys.readouterr().err.count(": warning: ") == 2


def test_info_shows_the_warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Recorded(folder, 1500, **COLLAPSING).go()
    capsys.readouterr()
    info(argparse.Namespace(run=folder))
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("warning"))
    assert f"step {SAID}: generated samples are 0.01 times as far apart" in line


def test_a_warning_stands_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar is wiped before it and drawn again behind it."""
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = Progress(0, 100, 4)
    bar.advance()
    with bar.aside():
        say("a warning")
    bar.close()
    before, after = terminal.getvalue().split("a warning\n")
    assert before.endswith("\r")
    assert before.split("\r")[-2].strip() == ""
    assert "step 1/100" in after


def test_a_healthy_run_has_no_warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Recorded(folder, 1000, sample_every=1000, checkpoint_every=1000).go()
    assert warnings_of(folder) == []
    assert ": warning: " not in capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on(folder: Path) -> None:
    Training(folder.with_name("straight"), 40).go()
    Training(folder, 20).go()
    path = folder / "metrics.csv"
    rows = path.read_text().splitlines()
    path.write_text("".join(",".join(row.split(",")[:8]) + "\n" for row in rows))
    assert path.read_text().startswith(OLDER_HEADER + "\n")
    Training(folder, 40, resume=True).go()
    metrics, straight = read_metrics(path), read_metrics(folder.with_name("straight") / path.name)
    assert metrics["step"] == straight["step"] == [1, 10, 20, 30, 40]
    assert metrics["d_loss"] == straight["d_loss"]
    assert [math.isnan(value) for value in metrics["spread"]] == [True] * 3 + [False] * 2


# ---- readings that wait --------------------------------------------------------------------------


def test_readings_that_wait_make_the_same_log(tmp_path: Path) -> None:
    rest = {"log_every": 1, "sample_every": 25, "checkpoint_every": 40}
    Training(tmp_path / "a", 90, **rest).go()
    waiting(Training(tmp_path / "b", 50, **rest)).go()
    waiting(Training(tmp_path / "b", 90, resume=True, **rest)).go()
    logs = [(tmp_path / name / "metrics.csv").read_bytes() for name in "ab"]
    assert logs[0] == logs[1]


def test_a_signal_loses_no_reading(tmp_path: Path) -> None:
    rest = {"log_every": 1, "sample_every": 500, "checkpoint_every": 500}
    with pytest.raises(SystemExit):
        waiting(Training(tmp_path / "a", 90, **rest)).go({7: signal.SIGTERM})
    assert read_metrics(tmp_path / "a" / "metrics.csv")["step"] == list(range(1, 8))


def test_a_nan_that_waited_is_named_by_its_own_step(tmp_path: Path) -> None:
    training = waiting(Training(tmp_path / "a", 90, nan_from=5, log_every=1))
    with pytest.raises(NonFiniteError, match="step 5: d_loss = nan"):
        training.go()
    assert read_metrics(tmp_path / "a" / "metrics.csv")["step"] == [1, 2, 3, 4]


def test_the_bar_shows_the_newest_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(Progress, "show", lambda self, step, *_: shown.append(step))
    monkeypatch.setattr("tinygan.run.loop.SHOWN_EVERY_SECONDS", math.inf)
    rest = {"log_every": 1, "sample_every": 500, "checkpoint_every": 500}
    waiting(Training(tmp_path / "a", 40, **rest)).go()
    assert shown == [16, 32, 40]
