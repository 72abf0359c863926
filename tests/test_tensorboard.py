"""--tensorboard: what the event files hold, read back record by record."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_run_loop import Training, snapshot

from tinygan.errors import OptionError
from tinygan.presets import PRESETS
from tinygan.run import parse_options
from tinygan.run.metrics_file import METRICS
from tinygan.run.tensorboard import EventFiles

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def records(path: Path) -> Iterator[bytes]:
    """A TFRecord file: length, its checksum, content, its checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        yield content[at + 12 : at + 12 + length]
        at += 12 + length + 4


def read(folder: Path) -> dict[tuple[str, int], Any]:
    """(tag, step) -> value, as TensorBoard shows them: a session that begins forgets later steps.

    Nothing may be there twice.
    """
    found: dict[tuple[str, int], Any] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for record in records(path):
            event = event_pb2.Event.FromString(record)
            if event.session_log.status == event_pb2.SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value
    return found


def steps_of(found: dict[tuple[str, int], Any], tag: str) -> list[int]:
    return [step for name, step in found if name == tag]


def training(folder: Path, total: int, **rest: object) -> Training:
    made = Training(folder, total, tensorboard=True, **rest)
    made.run._histograms = lambda: {"G/0.W": made.part.W}
    return made


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygan.run.log.write_curves", lambda *_, **__: None)


def test_losses_weights_and_grids_are_in_the_event_files(tmp_path: Path) -> None:
    training(tmp_path / "run", 25).go()
    found = read(tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    for row in rows:
        step, _, d_loss, *_ = row.split(",")
        value = found["loss/D", int(step)].simple_value
        assert value == pytest.approx(float(d_loss), rel=1e-6)
    assert steps_of(found, "loss/D") == [1, 10, 20, 25]
    for tag in ("loss/G", "probability_of_real/x", "probability_of_real/fakes", "accuracy/fakes"):
        assert steps_of(found, tag) == [1, 10, 20, 25]
    assert steps_of(found, "samples") == steps_of(found, "G/0.W") == [0, 10, 20, 25]
    assert found["G/0.W", 20].histo.num == 6
    with (
        Image.open(io.BytesIO(found["samples", 20].image.encoded_image_string)) as logged,
        Image.open(tmp_path / "run" / "samples" / "step_0000020.png") as written,
    ):
        assert np.array_equal(np.asarray(logged.convert("L")), np.asarray(written))


@pytest.mark.parametrize(("critic", "word"), [(False, "probability_of_real"), (True, "score")])
def test_scores_are_not_called_probabilities(tmp_path: Path, critic: bool, word: str) -> None:
    files = EventFiles(tmp_path / "tensorboard", critic)
    files.open(0)
    files.scalars(10, dict.fromkeys(METRICS, 0.5))
    files.close()
    tags = {tag for tag, _ in read(tmp_path)}
    assert {tag.split("/")[0] for tag in tags if tag.endswith("/x")} == {word, "accuracy"}
    assert {"loss/penalty", "gradient/G", "spread/fakes"} < tags
    assert len(tags) == len(METRICS)


def test_a_resumed_run_writes_no_step_twice(tmp_path: Path) -> None:
    training(tmp_path / "straight", 60).go()
    killed = training(tmp_path / "killed", 60)
    for step in killed.run.steps():
        killed.part.advance(step)
        if step == 58:
            break  # the newest checkpoint is of step 40, and step 50 is in the event file
    training(tmp_path / "killed", 60, resume=True).go()
    straight, resumed = read(tmp_path / "straight"), read(tmp_path / "killed")
    assert list(straight) == list(resumed)
    for key, value in straight.items():
        assert value == resumed[key], key


def test_a_run_without_the_option_has_no_event_files(tmp_path: Path) -> None:
    Training(tmp_path / "run", 10).go()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(OptionError, match=r"pip install tensorboardX, .*--no-tens") as refused:
        training(tmp_path / "run", 10)
    assert "\n" not in str(refused.value)
    assert not snapshot(tmp_path)


def test_the_option_is_recorded_and_may_be_taken_back(tmp_path: Path) -> None:
    new = parse_options(["--preset", "dcgan-pool", "--tensorboard"], "", PRESETS)
    assert new.tensorboard
    assert new.values()["tensorboard"] is True
    assert not parse_options(["--preset", "dcgan-pool"], "", PRESETS).tensorboard
