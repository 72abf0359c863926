"""The DCGANs: their sources' rules, and whole runs of narrow copies through the example."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import WIDTH, image_shape, narrow
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from test_cli import ROOT, idx

from tinygan import Network, Noise, get_backend
from tinygan.__main__ import main
from tinygan.data import Dataset
from tinygan.errors import DataError
from tinygan.nn import BatchNorm, Conv2D, ConvTranspose2D, Dense, LeakyReLU, MaxPool2D, ReLU, Tanh
from tinygan.presets import DCGANS, PRESETS, Labels, Preset
from tinygan.run import make_game, parse_options

EXAMPLE = ROOT / "examples" / "train_dcgan.py"
RADFORD = [name for name in DCGANS if "radford" in name]


# ---- DCGAN's five rules --------------------------------------------------------------------------


def layers(preset: Preset) -> tuple[list[Any], list[Any]]:
    G = preset.generator(None, Labels()).layers
    return list(G), list(preset.discriminator(Labels()).layers)


@pytest.mark.parametrize("name", RADFORD)
def test_the_five_rules(name: str) -> None:
    G, D = layers(DCGANS[name])
    assert not [layer for layer in G + D if isinstance(layer, (MaxPool2D, Dense))]  # 1, 3
    for player, kind in ((G, ConvTranspose2D), (D, Conv2D)):
        places = [i for i, layer in enumerate(player) if type(layer) is kind]
        bare = places[-1:] if player is G else [places[0], places[-1]]
        for i in places:  # 2: BatchNorm everywhere but at G's output and D's input (and output)
            assert isinstance(player[i + 1], BatchNorm) == (i not in bare)
    activations = [layer for layer in G if isinstance(layer, (LeakyReLU, Tanh))]
    assert {type(layer) for layer in activations[:-1]} == {ReLU}  # 4
    assert isinstance(activations[-1], Tanh)
    leaks = [layer for layer in D if isinstance(layer, LeakyReLU)]
    assert {layer.slope for layer in leaks} == {0.2}  # 5


def test_radfords_weights_start_small() -> None:
    backend = get_backend("numpy")
    preset = DCGANS["dcgan-radford"]
    G = Network(preset.generator(None, Labels()), (100,), backend, "G", Noise(0, backend))
    for name, view in G.named_parameters().items():
        mean, std = float(view.mean()), float(view.std())
        kind = name.split(".")[1]
        if kind in ("beta", "b"):
            assert (mean, std) == (0, 0)
            continue
        assert mean == pytest.approx(1.0 if kind == "gamma" else 0.0, abs=0.01), name
        assert std == pytest.approx(0.02, rel=0.3), name


def test_sources_in_steps_and_epochs() -> None:
    options = parse_options(["--preset", "dcgan-tf"], "", PRESETS)
    images = 60_000
    assert options.steps_per_epoch(images) == 234
    assert options.total_steps(images) == 50 * 234
    assert options.schedule(images).sample_every == 10 * 234
    assert options.schedule(images).checkpoint_every == 15 * 234
    options = parse_options(["--preset", "dcgan-tf", "--sample-every", "7"], "", PRESETS)
    assert options.schedule(images).sample_every == 7
    assert options.schedule(images).checkpoint_every == 15 * 234
    pool = parse_options(["--preset", "dcgan-pool"], "", PRESETS)
    assert pool.log_every == 100
    assert pool.preset.grid == (4, 4)


def test_images_are_padded_with_background_all_around() -> None:
    images = np.full((2, 3, 4, 1), 9, np.uint8)
    data = Dataset("d", images, np.zeros(2, np.uint8))
    padded = data.padded(7).images
    assert padded.shape == (2, 7, 7, 1)
    assert np.array_equal(padded[:, 2:5, 1:5], images)
    assert padded.sum() == images.sum()
    assert data.padded(None) is data
    with pytest.raises(DataError, match="3×4 images do not fit into 3×3"):
        data.padded(3)


@pytest.mark.parametrize("name", DCGANS)
def test_the_game_is_what_the_recipe_says(name: str) -> None:
    told = dataclasses.replace(DCGANS[name], labels=Labels(10), batch_size=8)
    backend = get_backend("numpy")
    noise = Noise(0, backend, step=1)
    size = image_shape(told)[0]
    values = np.arange(40, dtype=np.uint8)  # every image shows its label, in tens
    images = np.broadcast_to(values[:, None, None, None] * 6, (40, size, size, 1))
    data = Dataset("d", np.ascontiguousarray(images), (values % 10).astype(np.uint8))
    G = Network(narrow(told, told.generator(None, told.labels)), (3,), backend, "G", noise)
    D = Network(narrow(told, told.discriminator(told.labels)), data.image_shape, backend, "D")
    game = make_game(told, G, D, data, noise)
    shown = np.rint((game.sample()[:, 0, 0, 0] + 1) * 255 / 12).astype(int)
    assert game.labels_of_x is not None
    assert game.labels_of_x().tolist() == (shown % 10).tolist()
    pool = name == "dcgan-pool"
    assert (game.combined, game.objective.flipped) == (pool or name == "dcgan-tf", pool)
    zero, losses = backend.zeros((8, 1)), D.cache("losses", noise=noise)
    _, d_real, d_fake = game.objective.discriminator(zero, zero, losses)
    share = 1.0 if name == "dcgan-tf" else 0.5  # the sum of both halves, or their mean
    for d in (d_real, d_fake):
        assert abs(float(np.abs(d).sum()) - share / 2) < 0.05 * share
        assert (len(np.unique(d)) > 1) == pool  # labels are noisy
    unlabelled = dataclasses.replace(DCGANS[name], batch_size=8)
    G = Network(narrow(unlabelled, unlabelled.generator(None, Labels())), (3,), backend, "G")
    D = Network(narrow(unlabelled, unlabelled.discriminator(Labels())), data.image_shape, backend)
    assert make_game(unlabelled, G, D, data, noise).draw_labels is None


# ---- the example ---------------------------------------------------------------------------------


TRAINERS = sorted((ROOT / "examples").glob("train_*.py"))


@pytest.mark.parametrize("path", TRAINERS, ids=lambda p: p.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Made-up images of 6×6 pixels, which narrow presets pad to their own size."""
    folder = tmp_path / "digits"
    folder.mkdir()
    images = np.random.default_rng(0).integers(1, 256, (43, 6, 6))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(idx(images))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(43) % 10))
    return folder


@pytest.fixture
def example(digits: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The example's main, for narrow copies of the presets under their own names."""
    for name, wide in list(DCGANS.items()):
        preset = narrow_preset(wide)
        for known in (DCGANS, PRESETS):
            monkeypatch.setitem(known, name, preset)
    monkeypatch.setenv("TINYGAN_DATA", str(digits))
    spec = importlib.util.spec_from_file_location("train_dcgan", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("tinygan.run.log.write_curves", lambda *_, **__: None)
    return lambda *words: module.main([*map(str, words)])


def narrow_preset(wide: Preset) -> Preset:
    def generator(pixel_means: Any, labels: Labels) -> Any:
        told = dataclasses.replace(wide, labels=labels)
        return narrow(told, wide.generator(pixel_means, labels))

    def discriminator(labels: Labels, packing: int) -> Any:
        return narrow(dataclasses.replace(wide, labels=labels), wide.discriminator(labels))

    return dataclasses.replace(
        wide,
        generator=generator,
        discriminator=discriminator,
        latent=WIDTH[wide.latent],
        image_size=12 if wide.name == "dcgan-pool" else 8,
        batch_size=8,
        sample_every_epochs=1,
        sample_every=None,
        checkpoint_every_epochs=2,
        log_every=2,
    )


@pytest.mark.parametrize("told", ["", "--conditional", "--conditional embedding"])
@pytest.mark.parametrize("name", DCGANS)
def test_resuming_continues_bit_for_bit(
    name: str, told: str, example: Callable[..., None], tmp_path: Path
) -> None:
    new = ("--preset", name, *told.split(), "--backend", "numpy", "--seed", 3)
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    example(*new, "--steps", 12, "--out", straight)
    example(*new, "--steps", 7, "--out", halves)
    example("--resume", halves, "--steps", 12)
    for path in ("metrics.csv", "checkpoints/step_0000012.safetensors"):
        assert (straight / path).read_bytes() == (halves / path).read_bytes(), path
    grids = sorted(int(path.stem[5:]) for path in (straight / "samples").iterdir())
    assert grids == [0, 5, 10, 12]  # 43 images make epochs of five minibatches
    kept = {int(path.stem[5:]) for path in (straight / "checkpoints").glob("*.json")}
    assert {10, 12} <= kept <= {0, 10, 12}
    with Image.open(straight / "samples" / "step_0000012.png") as grid:
        size = PRESETS[name].image_size or 0
        columns = 10 if told else PRESETS[name].grid[1]
        assert grid.width == columns * (size + 1) - 1


def test_labels_are_recorded_and_a_resumed_run_keeps_them(
    example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = ("--preset", "dcgan-tf", "--backend", "numpy", "--steps", 2)
    for kind in ("none", "one-hot", "embedding"):
        told = [] if kind == "none" else ["--conditional", kind]
        example(*new, *told, "--out", tmp_path / kind)
    recorded = json.loads((tmp_path / "embedding" / "run.json").read_text())
    assert recorded["options"]["conditional"] == "embedding"
    assert recorded["recipe"]["labels"] == [10, 50]
    for folder, given, words in [
        ("none", "one-hot", "--conditional one-hot conflicts with the run in "),
        ("none", "one-hot", "which has no --conditional: leave it out"),
        ("one-hot", "embedding", "which has --conditional one-hot: leave it out"),
    ]:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            example("--resume", tmp_path / folder, "--steps", 4, "--conditional", given)
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert words in errors
    example("--resume", tmp_path / "one-hot", "--steps", 4, "--conditional")


def test_the_columns_of_a_grid_are_labels() -> None:
    preset = dataclasses.replace(DCGANS["dcgan-radford"], labels=Labels(10), grid=(3, 10))
    labels = preset.grid_labels(get_backend("numpy"))
    assert labels.reshape(3, 10).tolist() == [list(range(10))] * 3


def test_the_event_files_of_a_dcgan_hold_weights_and_logits(
    example: Callable[..., None], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboardX")
    from test_tensorboard import read

    new = ("--preset", "dcgan-pool", "--backend", "numpy", "--tensorboard")
    example(*new, "--steps", 7, "--out", tmp_path / "run")
    example("--resume", tmp_path / "run", "--steps", 10)
    found = read(tmp_path / "run")
    for tag in ("G/0.W", "D/0.W", "logits/real", "logits/fake", "samples"):
        steps = [step for name, step in found if name == tag]
        assert steps == ([5, 7, 10] if "logits" in tag else [0, 5, 7, 10]), tag
    assert found["logits/real", 5].histo.num == 8


def test_samples_of_a_narrow_run(example: Callable[..., None], tmp_path: Path) -> None:
    example("--preset", "dcgan-radford-32", "--conditional", "--steps", 2, "--out", tmp_path / "r")
    main(["sample", str(tmp_path / "r"), "--n", "20", "--out", str(tmp_path / "s.npz")])
    with np.load(tmp_path / "s.npz") as file:
        assert file["samples"].shape == (20, 8, 8, 1)


def test_a_d_with_layer_norm_is_exported_as_it_was_trained(
    example: Callable[..., None], tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "D.safetensors"
    example("--preset", "dcgan-radford", "--d-norm", "layer", "--steps", 1, "--out", run)
    main(["export", str(run), "--player", "D", "--to", str(out)])
    kept = load_file(run / "checkpoints" / "step_0000001.safetensors")
    exported = load_file(out)
    assert exported.keys() == {name[2:] for name in kept if name.startswith("D/")}
    for name, tensor in exported.items():
        np.testing.assert_array_equal(tensor, kept[f"D/{name}"])
    with safe_open(out, "numpy") as file:
        about = json.loads(file.metadata()["tinygan"])
    kinds = [layer["kind"] for layer in about["layers"]]
    assert "LayerNorm" in kinds
    assert "BatchNorm" not in kinds
