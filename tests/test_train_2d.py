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
from tinygan.run.atomic import write_json
from tinygan.run.rebuild import load_generator

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
    monkeypatch.setattr("tinygan.run.log.write_curves", lambda *_, **__: None)
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


def test_a_scale_of_one_does_not_hide_the_shift(train: Callable[..., None], tmp_path: Path) -> None:
    """These points have mean 5 and variance 1: exactly."""
    np.save(tmp_path / "mine.npy", np.array([[4.0, 4.0], [6.0, 6.0]] * 200))
    run = tmp_path / "run"
    words = ["--data", tmp_path / "mine.npy", *SHORT, "--steps", 1, "--out", run]
    train("--preset", "ring-best", *words)
    assert json.loads((run / "run.json").read_text())["data"]["scale"] == 1.0
    main(["sample", str(run), "--n", "20"])
    samples = np.load(run / "generated.npz")["samples"]
    np.testing.assert_allclose(samples, load_generator(run).samples(20) + 5.0, rtol=1e-5)


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


# ---- what a resumed run may be told again ------------------------------------------------------

YOUNG = ("real_target", "penalty", "penalty_weight", "clip", "instance_noise", "packing", "d_norm")


def refusal(train: Callable[..., None], capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(*words)
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    return errors


def test_a_run_from_before_an_option_is_one_without_it(
    train: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, straight = tmp_path / "old", tmp_path / "straight"
    train("--preset", "ring-best", *SHORT, "--steps", 2, "--out", old)
    train("--preset", "ring-best", *SHORT, "--steps", 4, "--out", straight)
    manifest = json.loads((old / "run.json").read_text())
    for name in YOUNG:
        del manifest["options"][name]
    write_json(old / "run.json", manifest)
    errors = refusal(train, capsys, "--resume", old, "--packing", 2, "--steps", 4)
    assert "--packing 2 conflicts" in errors
    train("--resume", old, "--steps", 4)
    last = "checkpoints/step_0000004.safetensors"
    assert (old / last).read_bytes() == (straight / last).read_bytes()


def test_an_order_that_was_given_is_kept_when_k_is_given_again(
    train: Callable[..., None], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["--k", 2, "--order", "alternating", "--steps", 2]
    train("--preset", "ring-best", *words, *SHORT, "--out", run)
    train("--resume", run, "--k", 2, "--steps", 3)
    options = json.loads((run / "run.json").read_text())["options"]
    assert (options["k"], options["order"], options["steps"]) == (2, "alternating", 3)


def test_a_pair_may_be_named_again_but_not_changed(
    train: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--objective", "wgan-gp", "--k", 2, "--steps", 2]
    train("--preset", "ring-best", *words, *SHORT, "--out", run)
    train("--resume", run, "--objective", "wgan-gp", "--steps", 3)
    options = json.loads((run / "run.json").read_text())["options"]
    assert (options["objective"], options["penalty"], options["k"]) == ("wgan", "gp", 2)
    assert "--penalty none conflicts" in refusal(
        train, capsys, "--resume", run, "--penalty", "none"
    )
    for other in ("wgan-lp", "wgan-clip", "gan-r1"):
        assert "conflicts" in refusal(train, capsys, "--resume", run, "--objective", other)
