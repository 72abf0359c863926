"""The plane's example from the command line to the samples, and on after an interruption."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tinygan.__main__ import main
from tinygan.data import WORLDS
from tinygan.errors import DataError
from tinygan.presets import PLANES

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "train_2d.py"
AXES = ["--objective", "wgan-gp", "--packing", 2, "--instance-noise", 0.05, "--clip", 1.0]
SHORT = ["--backend", "numpy", "--batch-size", 8, "--log-every", 2, "--sample-every", 100]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The example's main, without its pictures of losses."""
    spec = importlib.util.spec_from_file_location("train_2d", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("tinygan.run.loop.write_curves", lambda *_, **__: None)
    return lambda *words: module.main([*map(str, words)])


def test_every_axis_resumes_bit_for_bit(train: Callable[..., None], tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    recipe = ["--preset", "ring-best", *AXES, *SHORT]
    train(*recipe, "--steps", 8, "--out", straight)
    train(*recipe, "--steps", 3, "--out", halves)
    train("--resume", halves, "--steps", 8)
    for name in ("metrics.csv", "checkpoints/step_0000008.safetensors"):
        assert (straight / name).read_bytes() == (halves / name).read_bytes(), name
    options = json.loads((halves / "run.json").read_text())["options"]
    assert (options["objective"], options["penalty"], options["k"]) == ("wgan", "gp", 5)
    assert (options["packing"], options["instance_noise"], options["clip"]) == (2, 0.05, 1.0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("preset", PLANES)
def test_every_preset_runs_in_every_world(
    preset: str, world: str, train: Callable[..., None], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train("--preset", preset, "--data", world, *SHORT, "--steps", 1, "--out", run)
    assert (run / "samples" / "step_0000001.png").exists()
    main(["sample", str(run), "--n", "5"])
    assert np.load(run / "generated.npz")["samples"].shape == (5, 2)


def test_clipping_holds_after_every_step(train: Callable[..., None], tmp_path: Path) -> None:
    train("--preset", "ring-best", "--clip", 0.02, *SHORT, "--steps", 2, "--out", tmp_path / "run")
    out = tmp_path / "D.safetensors"
    main(["export", str(tmp_path / "run"), "--player", "D", "--to", str(out)])
    assert max(np.abs(tensor).max() for tensor in load_file(out).values()) <= np.float32(0.02)


@pytest.mark.parametrize("suffix", ["npz", "png"])
def test_samples_are_in_the_users_numbers(
    train: Callable[..., None], tmp_path: Path, suffix: str
) -> None:
    mine = np.random.default_rng(0).normal(size=(50, 2)) * [3e9, 1e9] + [1e12, -5e9]
    np.save(tmp_path / "mine.npy", mine)
    run, out = tmp_path / "run", tmp_path / f"out.{suffix}"
    words = ["--data", tmp_path / "mine.npy", *SHORT, "--steps", 2, "--out", run]
    train("--preset", "ring-best", *words)
    main(["sample", str(run), "--n", "20", "--out", str(out)])
    assert out.exists()
    if suffix == "npz":
        samples = np.load(out)["samples"]
        assert samples.shape == (20, 2)
        assert np.abs(samples - mine.mean(axis=0)).max() < 1e11  # near the data, not near 0
        assert len(np.unique(samples[:, 0])) == 20


def test_another_file_is_not_the_runs_data(train: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "mine.npy", rng.normal(size=(50, 2)))
    run = tmp_path / "run"
    words = ["--data", tmp_path / "mine.npy", *SHORT, "--steps", 2, "--out", run]
    train("--preset", "ring-best", *words)
    np.save(tmp_path / "mine.npy", rng.normal(size=(50, 2)))
    with pytest.raises(DataError, match="not the data the run was started with"):
        train("--resume", run, "--steps", 4)


def test_a_file_that_has_moved_is_the_runs_data(train: Callable[..., None], tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(50, 2)))
    run = tmp_path / "run"
    words = ["--data", tmp_path / "mine.npy", *SHORT, "--steps", 2, "--out", run]
    train("--preset", "ring-best", *words)
    (tmp_path / "mine.npy").rename(tmp_path / "moved.npy")
    with pytest.raises(DataError, match=r"mine\.npy"):
        train("--resume", run, "--steps", 4)
    train("--resume", run, "--steps", 4, "--data", tmp_path / "moved.npy")
