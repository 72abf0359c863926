"""`export`: named tensors, of which docs/interoperability.md makes the same player in PyTorch."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from tinygan.__main__ import main
from tinygan.backend import get_backend
from tinygan.nn import (
    Condition,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    MaxPool2D,
    Network,
    Reshape,
    Sequential,
    UpSample,
)
from tinygan.noise import Noise
from tinygan.presets import PRESETS, Labels, get_preset
from tinygan.run.atomic import write_json
from tinygan.run.checkpoint import save_checkpoint
from tinygan.run.export import describe_player, to_safetensors
from tinygan.run.folder import FORMAT
from tinygan.run.rebuild import Player

PAGE = Path(__file__).resolve().parent.parent / "docs" / "interoperability.md"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The names that the page's Python text defines."""
    pytest.importorskip("torch")
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def network(body: Sequential, input_shape: tuple[int, ...], name: str) -> Network:
    """With weights and running statistics that are nowhere trivial."""
    backend = get_backend("numpy")
    net = Network(body, input_shape, backend, name, Noise(2, backend))
    net.parameters += Noise(3, backend).normal("off", net.parameters.shape, 0.02)
    net.statistics += Noise(4, backend).uniform("off", net.statistics.shape, 0.0, 0.5)
    return net


def compare(recipe: dict[str, Any], net: Network, path: Path, labels: int = 0) -> None:
    import torch

    player = Player(net, get_preset("mlp-leaky"), {}, (7,))
    path.write_bytes(to_safetensors(*describe_player(player)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *net.input_shape)).astype(np.float32)
    asked = rng.integers(0, max(labels, 1), 6)
    site = net.cache("site", train=False)
    site.condition = asked
    ours = net.forward(x, site)
    theirs = recipe["Player"](path).eval()
    there = torch.tensor(x).permute(0, 3, 1, 2) if x.ndim == 4 else torch.tensor(x)
    with torch.no_grad():
        got = theirs(there, torch.tensor(asked))
    got = got.permute(0, 2, 3, 1) if got.ndim == 4 else got
    scale = float(np.abs(ours).max())
    np.testing.assert_allclose(got.numpy(), ours, rtol=0, atol=3e-5 * scale + 1e-8)


TOLD = [("dcgan-radford", Labels(10)), ("mlp-leaky-bn", Labels(10, 4))]


@pytest.mark.parametrize(("name", "labels"), [*((name, Labels()) for name in PRESETS), *TOLD])
def test_every_player_is_the_same_in_pytorch(
    name: str, labels: Labels, recipe: dict[str, Any], tmp_path: Path
) -> None:
    preset = get_preset(name)
    G = network(preset.generator(None, labels), (preset.latent,), "G")
    compare(recipe, G, tmp_path / "g.safetensors", labels.classes)
    D = network(preset.discriminator(labels), G.output_shape, "D")
    compare(recipe, D, tmp_path / "d.safetensors", labels.classes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dcgan-radford", {"d_norm": "layer"}),
        ("dcgan-tf", {"packing": 2}),
        ("mlp-leaky", {"packing": 3}),
    ],
)
def test_a_changed_discriminator_is_the_same_in_pytorch(
    name: str, changes: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    preset = replace(get_preset(name), **changes)
    shape = preset.generator(None, Labels()).output_shape((preset.latent,))
    D = network(preset.make_discriminator(), shape, "D")
    compare(recipe, D, tmp_path / "d.safetensors")


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 1), ((2, 3), (3, 2)), (4, 3), (1, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 0), (1, 0))])
def test_every_geometry_is_the_same_in_pytorch(
    size: int, kernel: Any, stride: Any, padding: Any, recipe: dict[str, Any], tmp_path: Path
) -> None:
    if padding == ((0, 0), (1, 0)) and kernel == 1:
        pytest.skip("beyond the kernel")
    down = Sequential(Conv2D(2, 3, kernel, stride, padding), Flatten())
    compare(recipe, network(down, (size, size + 1, 2), "D"), tmp_path / "down.safetensors")
    up = Sequential(
        Dense(4, 2 * size * size),
        Reshape(size, size, 2),
        ConvTranspose2D(2, 3, kernel, stride, padding),
    )
    compare(recipe, network(up, (4,), "G"), tmp_path / "up.safetensors")


def test_layers_that_no_preset_has_in_this_form(recipe: dict[str, Any], tmp_path: Path) -> None:
    body = Sequential(
        UpSample((2, 3)),
        Sequential(Condition(3, 2), Conv2D(4, 3, 3, b=None)),
        MaxPool2D(3, 2, "SAME"),
        ConvTranspose2D(3, 1, 4, 3, ((1, 0), (0, 1)), output_padding=(2, 1)),
    )
    compare(recipe, network(body, (3, 4, 2), "D"), tmp_path / "net.safetensors", 3)


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with three checkpoints of both players."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    preset = replace(get_preset("mlp-leaky"), labels=Labels(10))
    options = {"preset": preset.name, "dtype": "float32", "conditional": "one-hot"}
    write_json(folder / "run.json", {"format": FORMAT, "preset": preset.name, "options": options})
    G = network(preset.generator(None, preset.labels), (preset.latent,), "G")
    D = network(preset.discriminator(preset.labels), G.output_shape, "D")
    for step in (1, 2, 5):
        G.parameters += 1.0
        D.parameters -= 1.0
        save_checkpoint(folder / "checkpoints", step, {"G": G, "D": D}, {})
    return folder


@pytest.mark.parametrize("player", ["G", "D"])
def test_a_file_has_tensors_and_says_what_they_are(
    run: Path, player: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out.safetensors"
    main(["export", str(run), "--to", str(to), "--player", player])
    assert f"{player} of mlp-leaky, checkpoint 5: " in capsys.readouterr().out
    tensors = safetensors.numpy.load_file(to)
    with safe_open(to, "numpy") as file:
        about = json.loads(file.metadata()["tinygan"])
    named = {t["name"]: t for layer in about["layers"] for t in layer["tensors"].values()}
    assert {name: list(t.shape) for name, t in tensors.items()} == {
        name: t["shape"] for name, t in named.items()
    }
    assert named["1.W"]["axes"] == ["in", "out"] if player == "G" else "2.W" in named
    assert (about["player"], about["preset"], about["value_range"]) == (
        player,
        "mlp-leaky",
        [-1, 1],
    )
    shapes = ([100], [28, 28, 1]) if player == "G" else ([28, 28, 1], [1])
    assert (about["input"], about["output"]) == shapes
    words = [layer["words"] for layer in about["layers"]]
    assert "Condition(10 classes, one-hot)" in words
    kept = safetensors.numpy.load_file(run / "checkpoints" / "step_0000005.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, kept[f"{player}/{name}"])


def test_an_older_checkpoint_or_a_mean_can_be_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []
    for i, rest in enumerate(
        [[], ["--checkpoint", "1"], ["--average-from", "1"], ["--average-from", "2"]]
    ):
        to = tmp_path / f"{i}.safetensors"
        main(["export", str(run), "--to", str(to), "--player", "D", *rest])
        loaded.append(safetensors.numpy.load_file(to)["2.W"])
    assert "the mean of 2 checkpoints, 2 to 5" in capsys.readouterr().out
    for other, above in zip(loaded, (0, 2, 1, 0.5), strict=True):
        np.testing.assert_allclose(other - loaded[0], above, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("export {run}", "--to"),
        ("export {run} --to a.pt", "--to a.pt: expected a name that ends in .safetensors"),
        ("export {run} --to {tmp}/no/a.safetensors", "cannot write {tmp}/no/a.safetensors"),
        ("export {run} --to a.safetensors --player E", "invalid choice: 'E'"),
        ("export {run} --to a.safetensors --checkpoint 3", "no checkpoint of step 3"),
        ("export {tmp} --to a.safetensors", "is not a run folder"),
    ],
)
def test_a_bad_export_is_one_line(
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
    assert not list(tmp_path.glob("*.safetensors"))
