"""The command lines: options checked and recorded, training, resuming, sampling, measuring."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tinygan.__main__ import main
from tinygan.errors import CheckpointError, DataError
from tinygan.presets import PRESETS
from tinygan.run import one_line_errors, parse_options
from tinygan.run.evaluate import evaluate_parzen
from tinygan.run.manifest import machine
from tinygan.run.rebuild import load_generator

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "train_mlp_gan.py"
DCGAN = ROOT / "examples" / "train_dcgan.py"


def idx(values: np.ndarray) -> bytes:
    """An idx file of uint8 values, gzipped."""
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of idx files with a few hundred made-up images."""
    folder = tmp_path_factory.mktemp("tiny-digits")
    draws = np.random.default_rng(0)
    for name, n in (("train", 300), ("t10k", 60)):
        images = np.clip(draws.normal(90, 60, (n, 28, 28)), 0, 255)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n) % 10))
    return folder


def command(*arguments: object, module: bool = False, program: Path = EXAMPLE) -> list[str]:
    words = ["-m", "tinygan"] if module else [str(program)]
    return [sys.executable, "-W", "error", *words, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}


def train(*arguments: object, code: int = 0, program: Path = EXAMPLE) -> str:
    """Run the example in a process of its own; its stderr."""
    done = subprocess.run(
        command(*arguments, program=program),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps with all kinds of state: BatchNorm, Adam, shuffled epochs."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    train(*RECIPE, "--data-dir", digits, "--steps", 12, "--out", folder)
    return folder


RECIPE = ("--preset", "mlp-leaky-bn", "--backend", "numpy", "--batch-size", 32, "--seed", 5)
RECIPE += ("--log-every", 2, "--sample-every", 6, "--checkpoint-every", 6)  # type: ignore[assignment]


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "give --preset"),
        ("--preset mlp-batchnrm", "did you mean 'mlp-batchnorm'?"),
        ("--preset mlp-leaky --batch-size -4", "--batch-size: expected a whole number at least 1"),
        ("--preset mlp-leaky --batch-size 2.5", "given '2.5'"),
        ("--preset mlp-leaky --k 0", "--k: expected a whole number at least 1, given '0'"),
        ("--preset mlp-leaky --k 2 --order simultaneous", "does not go with simultaneous play"),
        ("--preset mlp-leaky --lr 0", "--lr: expected a number above 0"),
        ("--preset mlp-leaky --lr nan", "--lr: expected a number above 0"),
        ("--preset mlp-leaky --seed -1", "--seed: expected a whole number from 0"),
        ("--preset mlp-leaky --steps 5 --epochs 5", "not allowed with"),
        ("--preset mlp-leaky --steps 1" + 400 * "0", "whole number from 1 to 1000000000, given"),
        ("--preset mlp-leaky --packing 1" + 18 * "0", "whole number from 1 to 1000000000, given"),
        ("--preset mlp-leaky --objective hing", "invalid choice: 'hing'"),
        ("--preset mlp-leaky --data cifar", "unknown data set 'cifar'"),
        ("--preset mlp-leaky --conditional two-hot", "invalid choice: 'two-hot'"),
        ("--preset mlp-leaky --tensorboard=yes", "ignored explicit argument 'yes'"),
        ("--preset dcgan-tff", "did you mean 'dcgan-tf'?"),
        ("--preset mlp-leaky --stepps 5", "unrecognized arguments: --stepps 5"),
        ("--preset mlp-leaky --checkpoint 5", "--checkpoint goes with --resume"),
        ("--resume nowhere", "nowhere is not a run folder"),
        ("--resume nowhere --out there", "--out cannot go with --resume"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(
    given: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        parse_options(given.split(), "a program", PRESETS)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert not list(tmp_path.iterdir())


def test_options_override_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = "--preset mlp-batchnorm --batch-size 50 --k 2 --lr 1e-3 --objective minimax --epochs 3"
    options = parse_options(given.split(), "", PRESETS)
    preset = options.preset
    assert (preset.batch_size, preset.k, preset.lr, preset.objective) == (50, 2, 1e-3, "minimax")
    assert preset.order == PRESETS["mlp-batchnorm"].order
    assert options.steps is None
    assert options.steps_per_epoch(1049) == 10  # 20 whole minibatches, two of them each step
    assert options.total_steps(1049) == 30
    assert options.folder.parent == Path("runs")
    assert options.folder.name.startswith("mlp-batchnorm-")
    with pytest.raises(DataError, match=r"--batch-size 50 is larger than the data set \(49 images"):
        options.steps_per_epoch(49)


def test_the_length_is_the_presets_unless_given(tmp_path: Path) -> None:
    assert parse_options(["--preset", "mlp-leaky"], "", PRESETS).epochs == 300
    options = parse_options(["--preset", "mlp-leaky", "--steps", "7"], "", PRESETS)
    assert (options.steps, options.epochs) == (7, None)


# ---- training ------------------------------------------------------------------------------------


def test_a_run_can_be_repeated_from_its_run_json(run: Path, digits: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["preset"] == "mlp-leaky-bn"
    assert manifest["options"]["batch_size"] == 32
    assert manifest["options"]["lr"] == PRESETS["mlp-leaky-bn"].lr
    assert manifest["options"]["backend"] == manifest["backend"]["name"] == "numpy"
    assert manifest["seed"] == 5
    assert manifest["data"]["images"] == 300
    assert manifest["data"]["name"] == digits.name
    assert len(manifest["data"]["sha256"]) == 64
    assert manifest["options"]["precision"] == manifest["backend"]["precision"] == "float32"
    assert {"python", "numpy", "tinygan"} <= manifest["versions"].keys()
    assert "git" in manifest
    assert "train_mlp_gan.py" in manifest["command"]


def test_resuming_continues_bit_for_bit(run: Path, digits: Path, tmp_path: Path) -> None:
    halves = tmp_path / "halves"
    train(*RECIPE, "--data-dir", digits, "--steps", 5, "--out", halves)
    train("--resume", halves, "--steps", 12)
    for name in ("metrics.csv", "checkpoints/step_0000012.safetensors"):
        assert (run / name).read_bytes() == (halves / name).read_bytes(), name
    assert "nothing to do" in train("--resume", halves)


def test_a_resumed_run_keeps_its_recipe_and_its_data(run: Path, tmp_path: Path) -> None:
    before = (run / "run.json").read_bytes()
    assert "conflicts with the run" in train("--resume", run, "--lr", 0.1, code=2)
    assert "--seed 6 conflicts" in train("--resume", run, "--seed", 6, code=2)
    errors = train("--resume", run, "--preset", "mlp-leaky", "--steps", 20, code=2)
    assert "--preset mlp-leaky conflicts" in errors
    for name, n in (("train-images-idx3", 300), ("train-labels-idx1", 300)):
        shape = (n, 28, 28) if "images" in name else (n,)
        (tmp_path / f"{name}-ubyte.gz").write_bytes(idx(np.zeros(shape)))
    errors = train("--resume", run, "--data-dir", tmp_path, "--steps", 20, code=2)
    assert "not the data the run was started with" in errors
    assert (run / "run.json").read_bytes() == before


@pytest.fixture
def edit(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of `run` with an edited run.json: edit("options", k=2), edit(git=3)."""

    def edited(part: str | None = None, /, **values: object) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(run, folder)
        manifest = json.loads((folder / "run.json").read_text())
        (manifest if part is None else manifest[part]).update(values)
        (folder / "run.json").write_text(json.dumps(manifest))
        return folder

    return edited


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", 0, "--batch-size: expected a whole number at least 1, given '0'"),
        ("batch_size", "x", "--batch-size: expected a whole number at least 1, given 'x'"),
        ("k", 2.5, "--k: expected a whole number"),
        ("order", "foo", "--order: invalid choice: 'foo'"),
        ("prior", "foo", "--prior: invalid choice: 'foo'"),
        ("lr", -1, "--lr: expected a number above 0"),
        ("log_every", 0, "--log-every: expected a whole number"),
        ("preset", "nope", "unknown preset 'nope'"),
        ("backend", None, "its option backend is null"),
        ("batch_size", None, "its option batch_size is null"),
        ("packing", None, "its option packing is null"),
        ("novelty", 1, "unrecognized arguments: --novelty=1"),
        ("conditional", "two-hot", "--conditional: invalid choice: 'two-hot'"),
        ("precision", "half", "--precision: invalid choice: 'half'"),
        ("conditional", 7, "--conditional: invalid choice: '7'"),
        ("tensorboard", "yes", "--tensorboard/--no-tensorboard: ignored explicit argument 'yes'"),
    ],
)
def test_an_edited_option_is_refused_as_a_typed_one_would_be(
    edit: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: object,
    words: str,
) -> None:
    folder = edit("options", **{name: value})
    with pytest.raises(SystemExit) as stopped:
        parse_options(["--resume", str(folder)], "", PRESETS)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert f"{folder}/run.json cannot be used: " in errors
    assert words in errors


def test_what_is_drawn_from_a_run_asks_the_same_of_its_options(
    edit: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = edit("options", packing=None)
    for words in (
        "sample --out o.png",
        "export --player D --to o.safetensors",
        "evaluate --metric parzen",
    ):
        command, *rest = words.replace("o.", f"{tmp_path}/o.").split()
        given = [command, str(folder), *rest]
        with pytest.raises(SystemExit) as stopped:
            main(given)
        assert stopped.value.code == 2
        assert "its option packing is null" in capsys.readouterr().err


def test_recorded_options_are_read_back_as_they_were(edit: Callable[..., Path]) -> None:
    options = parse_options(["--resume", str(edit("options", lr=0.1 + 0.2))], "", PRESETS)
    assert options.preset.lr == 0.1 + 0.2
    assert {**options.values(), "lr": 0} == {**options.recorded["options"], "lr": 0}  # type: ignore[index]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_goes_on_calling_d_as_it_did(edit: Callable[..., Path], recorded: bool) -> None:
    """Whatever the preset says today: D's dropout would draw other masks."""
    folder = edit("recipe", combined=recorded)
    options = parse_options(["--resume", str(folder)], "", PRESETS)
    assert options.preset.combined is recorded


def test_a_run_from_before_labels_resumes_and_samples(edit: Callable[..., Path]) -> None:
    """Its run.json knows nothing of the younger options."""
    folder = edit()
    manifest = json.loads((folder / "run.json").read_text())
    for name in ("conditional", "tensorboard"):
        del manifest["options"][name]
    for name in ("labels", "combined", "flipped", "label_noise", "image_size", "log_every"):
        del manifest["recipe"][name]
    (folder / "run.json").write_text(json.dumps(manifest))
    options = parse_options(["--resume", str(folder)], "", PRESETS)
    assert options.preset.labels.classes == 0
    assert not options.tensorboard
    assert "--conditional one-hot conflicts" in train("--resume", folder, "--conditional", code=2)
    train("--resume", folder, "--steps", 14)
    assert load_generator(folder).samples(2).shape == (2, 28, 28, 1)


def test_a_resumed_run_keeps_its_precision(edit: Callable[..., Path]) -> None:
    folder = edit("options", precision="tf32", backend="cupy")
    assert parse_options(["--resume", str(folder)], "", PRESETS).precision == "tf32"
    said = train("--resume", folder, "--precision", "float32", code=2)
    assert "--precision float32 conflicts with the run in" in said
    assert "which has --precision tf32: leave it out, or start a new run" in said


def test_a_run_of_tf32_is_looked_at_anywhere(
    edit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples are drawn in float32, so that they need no GPU."""
    folder = edit("options", precision="tf32", backend="cupy")
    assert load_generator(folder, backend="numpy").samples(2).shape == (2, 28, 28, 1)
    main(["info", str(folder)])
    assert "precision tf32" in capsys.readouterr().out


def test_a_run_from_before_precisions_was_one_of_float32(edit: Callable[..., Path]) -> None:
    folder = edit()
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["options"].pop("precision") == manifest["backend"].pop("precision")
    (folder / "run.json").write_text(json.dumps(manifest))
    for words in ([], ["--precision", "float32"]):
        options = parse_options(["--resume", str(folder), *words], "", PRESETS)
        assert options.precision == "float32"
    said = train("--resume", folder, "--precision", "tf32", code=2)
    assert "--precision tf32 conflicts with the run in" in said


def test_a_new_run_cannot_have_tf32_on_numpy(tmp_path: Path) -> None:
    new = ("--preset", "mlp-leaky", "--precision", "tf32", "--out", tmp_path / "no")
    said = train(*new, "--backend", "numpy", code=2)
    assert said.startswith("error: tf32 is a mode of NVIDIA tensor cores: take --backend cupy")
    said = train(*new, "--backend", "cupy", "--dtype", "float64", code=2)
    assert said.startswith("error: tf32 is for products of float32")
    assert not (tmp_path / "no").exists()


def test_what_forces_tf32_from_outside_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert machine()["environment"]["NVIDIA_TF32_OVERRIDE"] == "1"


def test_a_conditional_run_resumes_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    new = (*RECIPE, "--conditional", "embedding", "--data-dir", digits)
    train(*new, "--steps", 9, "--out", straight)
    train(*new, "--steps", 5, "--out", halves)
    train("--resume", halves, "--steps", 9)
    for name in ("metrics.csv", "checkpoints/step_0000009.safetensors"):
        assert (straight / name).read_bytes() == (halves / name).read_bytes(), name
    with Image.open(straight / "samples" / "step_0000009.png") as grid:
        assert grid.size == (10 * 29 - 1, 8 * 29 - 1)


def test_a_dcgan_trains_with_the_same_options(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dcgan"
    new = ("--preset", "dcgan-radford-32", "--backend", "numpy", "--batch-size", 4, "--seed", 5)
    train(*new, "--data-dir", digits, "--steps", 2, "--out", folder, program=DCGAN)
    assert "nothing to do" in train("--resume", folder, program=DCGAN)
    assert load_generator(folder).samples(2).shape == (2, 32, 32, 1)
    errors = train(*new[:1], "mlp-leaky", "--steps", 2, code=2, program=DCGAN)
    assert "mlp-leaky is trained by examples/train_mlp_gan.py" in errors


@pytest.mark.parametrize(
    ("name", "value"),
    [("options", []), ("data", None), ("backend", 1), ("versions", 3), ("sessions", 7)],
)
def test_a_damaged_run_json_is_one_line(
    edit: Callable[..., Path], capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    with pytest.raises(SystemExit):
        main(["info", str(edit(**{name: value}))])
    assert f"run.json is damaged: {name!r} is no " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (None, {"warnings": [{}]}),
        (None, {"warnings": [1]}),
        (None, {"warnings": [{"step": "10", "warning": "text"}]}),
        (None, {"sessions": [{"seconds": "long"}]}),
        ("data", {"sha256": None}),
        ("data", {"scale": "1"}),
        ("data", {"shift": [0.0, "x"]}),
        ("data", {"shape": [2], "shift": [0.0, math.nan]}),
        ("data", {"shape": [2], "shift": [0.0, 1.0, 2.0]}),
        ("data", {"scale": math.inf}),
        (None, {"sessions": [{"seconds": 10**400}]}),
    ],
)
def test_what_is_no_number_in_a_run_json_is_one_line(
    edit: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    part: str | None,
    values: dict[str, object],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(edit(part, **values))])
    assert stopped.value.code == 2
    assert "is not what tinygan writes" in capsys.readouterr().err


def test_a_run_json_without_bottom_is_one_line(
    edit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edit()
    (folder / "run.json").write_text(100_000 * "[")
    with pytest.raises(SystemExit):
        main(["info", str(folder)])
    assert "cannot read" in capsys.readouterr().err


def damage(folder: Path, name: str, value: float) -> None:
    """Put `value` into a tensor of the newest checkpoint, whose JSON vouches for it."""
    path = max((folder / "checkpoints").glob("*.safetensors"))
    tensors = load_file(path)
    tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, path)
    content = path.read_bytes()
    record = json.loads(path.with_suffix(".json").read_text())
    record |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(record))


def test_weights_that_are_not_finite_are_not_sampled(
    edit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edit()
    damage(folder, "G/0.W", math.nan)
    with pytest.raises(SystemExit):
        main(["sample", str(folder), "--out", str(tmp_path / "s.npz")])
    errors = capsys.readouterr().err
    assert "tensor G/0.W: not all numbers are finite; the newest good one before it" in errors
    assert not (tmp_path / "s.npz").exists()


def test_a_negative_count_of_steps_is_one_line(edit: Callable[..., Path]) -> None:
    folder = edit()
    damage(folder, "G_optimiser/t", -1)
    assert "counts -1 steps" in train("--resume", folder, "--steps", 20, code=2)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_a_folder_whose_name_is_no_text(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bytes-\xff")
    train(*RECIPE, "--data-dir", digits, "--steps", 2, "--out", folder)
    train("--resume", folder, "--steps", 3)
    assert json.loads((folder / "run.json").read_text())["command"].count(str(folder)) == 1


def test_a_sparse_run_json_can_still_be_told(edit: Callable[..., Path]) -> None:
    main(["info", str(edit(git=3, sessions=[{}, 4], data={}, recipe={}))])


def test_a_new_run_never_overwrites_one(run: Path, digits: Path) -> None:
    errors = train("--preset", "mlp-leaky", "--out", run, "--data-dir", digits, code=2)
    assert "already holds a run" in errors


def test_a_batch_larger_than_the_data_is_refused(digits: Path, tmp_path: Path) -> None:
    new = ("--preset", "mlp-leaky", "--data-dir", digits, "--out", tmp_path / "new")
    errors = train(*new, "--batch-size", 301, code=2)
    assert errors.startswith("error: --batch-size 301 is larger than the data set (300 images)")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_leaves_a_run_that_goes_on(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    arguments = command(*RECIPE, "--data-dir", digits, "--steps", 100_000, "--out", folder)
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoints" / "step_0000006.json").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"--resume {folder}" in errors
    assert "Traceback" not in errors
    newest = sorted((folder / "checkpoints").glob("*.json"))[-1]
    stopped = json.loads(newest.read_text())["step"]
    assert stopped >= 6
    train("--resume", folder, "--steps", stopped + 3)
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    steps = [int(row.split(",")[0]) for row in rows]
    last = stopped + 3
    assert steps == [1, *range(2, last, 2), last]


# ---- python -m tinygan ---------------------------------------------------------------------------


def test_presets_are_listed_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["presets"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    (leaky,) = [line for line in lines if line.startswith("mlp-leaky ")]
    assert "533,505" in leaky  # D: 784 x 512 + 512 + 512 x 256 + 256 + 256 + 1
    assert PRESETS["mlp-leaky"].source in leaky


def test_samples_are_images_in_the_datas_range(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sample", str(run), "--n", "6", "--seed", "1", "--out", str(tmp_path / "a.npz")])
    with np.load(tmp_path / "a.npz") as file:
        six = file["samples"]
    assert six.shape == (6, 28, 28, 1)
    assert six.dtype == np.float32
    assert -1 <= six.min() < six.max() <= 1
    assert "6 images (28, 28, 1) in [-1, 1] from checkpoint 12" in capsys.readouterr().out
    generator = load_generator(run)
    assert np.allclose(generator.samples(10, seed=1)[:6], six, atol=1e-6)
    assert not np.allclose(generator.samples(6, seed=2), six, atol=1e-2)
    assert not np.allclose(load_generator(run, step=6).samples(6, seed=1), six, atol=1e-4)
    main(["sample", str(run), "--n", "5", "--out", str(tmp_path / "a.png")])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (3 * 29 - 1, 2 * 29 - 1)
    main(["sample", str(run)])
    with np.load(run / "generated.npz") as file:
        assert file["samples"].shape == (64, 28, 28, 1)


def test_samples_come_from_the_prior_of_the_run(run: Path, edit: Callable[..., Path]) -> None:
    normal, uniform = load_generator(run), load_generator(edit("options", prior="uniform"))
    assert (normal.preset.prior, uniform.preset.prior) == ("normal", "uniform")
    assert not np.allclose(normal.samples(2), uniform.samples(2))


def test_samples_do_not_depend_on_their_batch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_generator(run)
    images = generator.samples(7)
    assert sum(len(batch) for batch in generator.batches(1203)) == 1203
    assert np.allclose(generator.samples(503)[:7], images, atol=1e-6)


def test_info_says_what_a_run_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(run)])
    told = capsys.readouterr().out
    for words in ("mlp-leaky-bn", "batch size 32", "0, 6, 12", "step 12", "numpy, float32"):
        assert words in told


def test_a_run_is_measured_and_the_figure_kept(
    run: Path, digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygan.run.evaluate.SAMPLES", 200)
    monkeypatch.setattr("tinygan.run.evaluate.VALIDATION", 100)
    monkeypatch.setattr("tinygan.run.evaluate.SIGMA_POINTS", 30)
    main(["evaluate", str(run), "--metric", "parzen"])
    main(["evaluate", str(run), "--metric", "parzen", "--split", "validation", "--checkpoint", "6"])
    told = capsys.readouterr().out
    test, validation = json.loads((run / "evaluation.json").read_text())
    assert (test["step"], test["split"], test["points"], test["samples"]) == (12, "test", 60, 200)
    assert (validation["step"], validation["points"]) == (6, 70)
    assert 0.1 <= test["sigma"] <= 1
    assert test["standard_error"] > 0
    assert f"{test['mean']:.1f} ± {test['standard_error']:.1f} nats" in told
    capsys.readouterr()
    main(["info", str(run)])
    assert "nats" in capsys.readouterr().out
    assert test["data"] == digits.name


@pytest.mark.parametrize(("used", "seen"), [(None, True), (250, True), (200, False)])
def test_a_figure_says_whether_validation_was_trained_on(
    run: Path, monkeypatch: pytest.MonkeyPatch, used: int | None, seen: bool
) -> None:
    """Of 300 images the last 100 are for validation, whatever a preset's train_images says."""
    monkeypatch.setattr("tinygan.run.evaluate.SAMPLES", 20)
    monkeypatch.setattr("tinygan.run.evaluate.VALIDATION", 100)
    monkeypatch.setattr("tinygan.run.evaluate.SIGMA_POINTS", 30)
    monkeypatch.setattr("tinygan.run.evaluate.check_data", lambda recorded, given: None)
    generator = load_generator(run)
    preset = dataclasses.replace(generator.preset, train_images=used)
    result = evaluate_parzen(dataclasses.replace(generator, preset=preset))
    assert result["validation_was_trained_on"] is seen


def test_a_figure_that_cannot_be_kept_is_still_told(
    edit: Callable[..., Path],
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, content: bytes, *_: object) -> None:
        raise DataError(f"cannot write {path}")

    monkeypatch.setattr("tinygan.run.atomic.write_bytes", full)
    with pytest.raises(SystemExit):
        main(["evaluate", str(edit()), "--metric", "parzen", "--data-dir", str(digits)])
    told = capsys.readouterr()
    assert "nats" in told.out
    assert "cannot write" in told.err


def test_a_run_is_measured_on_its_own_data_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape in (("images-idx3", (300, 28, 28)), ("labels-idx1", (300,))):
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(idx(np.zeros(shape)))
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--metric", "parzen", "--data-dir", str(tmp_path)])
    assert "these are not the data the run was started with" in capsys.readouterr().err


PARZEN = '[{"metric": "parzen", "step": 1, "points": 2, "data": "d", "split": "test", '
PARZEN += '"mean": "high", "standard_error": 1, "sigma": 1, "samples": 2}]'
TOO_HIGH = PARZEN.replace('"high"', "1" + 400 * "0")


@pytest.mark.parametrize(
    "content",
    ["{}", "[{}]", "[3]", "[", 100_000 * "[", PARZEN, TOO_HIGH],
)
def test_a_damaged_evaluation_is_one_line(
    edit: Callable[..., Path], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = edit()
    (folder / "evaluation.json").write_text(content)
    with pytest.raises(SystemExit):
        main(["info", str(folder)])
    assert "move it away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "COMMAND"),
        ("dance", "invalid choice: 'dance'"),
        ("sample {run} --n 0", "--n: expected a whole number at least 1, given '0'"),
        ("sample {run} --n 1" + 20 * "0", "--n: expected a whole number from 1 to 1000000000"),
        ("sample {run} --out a.jpg", "expected a name that ends in .npz or .png"),
        ("sample {run} --checkpoint 7", "no checkpoint of step 7"),
        (
            "sample {run} --out {tmp}/no/a.npz",
            "cannot write {tmp}/no/a.npz: there is no folder {tmp}/no; make it first",
        ),
        ("sample {tmp}", "{tmp} is not a run folder"),
        ("info {tmp}/none", "is not a run folder"),
        ("evaluate {run}", "--metric"),
        ("evaluate {run} --metric fid", "invalid choice: 'fid'"),
        ("evaluate {run} --metric parzen --data-dir {tmp}", "{tmp}"),
    ],
)
def test_a_bad_command_is_one_line_and_status_2(
    given: str, words: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"run": str(run), "tmp": str(tmp_path)}
    with pytest.raises(SystemExit) as stopped:
        main(given.format(**places).split())
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert words.format(**places) in errors


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError(13, "Permission denied"), "[Errno 13] Permission denied"),
        (MemoryError("too much"), "too much"),
        (MemoryError(), "not enough memory"),
        (UnicodeEncodeError("ascii", "±", 0, 1, "no"), r"'ascii' codec can't encode character"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    problem: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        raise problem
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {words}")
    assert errors.count("\n") == 1


def test_closed_streams_do_no_harm(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quiet"
    words = command(*RECIPE, "--data-dir", digits, "--steps", 2, "--out", folder)
    for program in (words, command("info", folder, module=True)):
        quiet = ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *program]
        assert subprocess.run(quiet, env=environment()).returncode == 0
    assert (folder / "samples.gif").exists()


def test_a_diverging_run_says_so_in_one_line(digits: Path, tmp_path: Path) -> None:
    new = (*RECIPE, "--data-dir", digits, "--out", tmp_path / "wild")
    errors = train(*new, "--lr", "1e30", "--steps", 20, code=2)
    assert "Warning" not in errors
    assert "the first layer with a non-finite value is " in errors.splitlines()[-1]


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        command("info", "nowhere", module=True), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: nowhere is not a run folder: it has no run.json\n"


def test_a_run_of_another_preset_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = PRESETS["mlp-leaky"]
    monkeypatch.setitem(PRESETS, "mlp-leaky-bn", other)
    with pytest.raises(CheckpointError, match="G/"):
        load_generator(run)


def test_a_preset_of_the_other_example_is_answered_with_it(tmp_path: Path) -> None:
    for program, preset, other in (
        (DCGAN, "mlp-leaky", "train_mlp_gan.py"),
        (EXAMPLE, "dcgan-tf", "train_dcgan.py"),
    ):
        said = train("--preset", preset, "--out", tmp_path / "no", code=2, program=program)
        assert f"{preset} is trained by examples/{other}" in said


def test_resuming_with_other_threads_is_said(edit: Callable[..., Path]) -> None:
    folder = edit(machine={"threads": 64})
    assert "started with 64 thread(s)" in train("--resume", folder, "--steps", 9)
