"""--average-from: G with the mean of its weights over several checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinygan.__main__ import main
from tinygan.backend import get_backend
from tinygan.errors import OptionError
from tinygan.nn import Network
from tinygan.noise import Noise
from tinygan.presets import get_preset
from tinygan.run.atomic import write_json
from tinygan.run.checkpoint import save_checkpoint
from tinygan.run.folder import FORMAT
from tinygan.run.rebuild import load_generator


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with three checkpoints of G, whose parameters are all 1, 2 and 6."""
    preset = get_preset("mlp-leaky")
    backend = get_backend("numpy")
    body = preset.generator(None, preset.labels)
    G = Network(body, (preset.latent,), backend, "G", Noise(0, backend))
    (tmp_path / "checkpoints").mkdir()
    options = {"preset": preset.name, "dtype": "float32", "data": "strokes"}
    write_json(tmp_path / "run.json", {"format": FORMAT, "preset": preset.name, "options": options})
    for step, value in [(10, 1.0), (20, 2.0), (30, 6.0)]:
        G.parameters.fill(value)
        save_checkpoint(tmp_path / "checkpoints", step, {"G": G}, {})
    return tmp_path


@pytest.mark.parametrize(
    ("step", "first", "mean", "steps"),
    [
        (None, 10, 3.0, (10, 20, 30)),
        (None, 11, 4.0, (20, 30)),
        (20, 0, 1.5, (10, 20)),
        (30, 30, 6.0, (30,)),
    ],
)
def test_weights_are_the_mean(
    run: Path, step: int | None, first: int, mean: float, steps: tuple[int, ...]
) -> None:
    generator = load_generator(run, step, "numpy", average_from=first)
    assert generator.steps == steps
    np.testing.assert_array_equal(generator.network.parameters, mean)


def test_without_it_the_newest_checkpoint_is_taken(run: Path) -> None:
    generator = load_generator(run, backend="numpy")
    assert generator.steps == (30,)
    np.testing.assert_array_equal(generator.network.parameters, 6.0)


def test_an_empty_span_is_one_clear_error(run: Path) -> None:
    with pytest.raises(OptionError, match="no checkpoint from step 31 on"):
        load_generator(run, backend="numpy", average_from=31)


def test_the_command_line_says_what_it_averaged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sample", str(run), "--n", "2", "--average-from", "20", "--out", str(run / "a.npz")])
    assert "mean of 2 checkpoints, 20 to 30" in capsys.readouterr().out
