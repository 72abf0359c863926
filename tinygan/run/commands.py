"""What `python -m tinygan` does, command by command."""

from __future__ import annotations

import argparse
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinygan.backend import get_backend
from tinygan.errors import OptionError
from tinygan.gan.algorithm1 import METRICS
from tinygan.nn import Network
from tinygan.presets import PRESETS
from tinygan.run.agreement import evaluate_agreement
from tinygan.run.atomic import write_bytes
from tinygan.run.checkpoint import list_checkpoints
from tinygan.run.evaluate import (
    append_result,
    describe,
    evaluate_modes,
    evaluate_parzen,
    read_results,
    require_images,
)
from tinygan.run.export import describe_player, to_safetensors
from tinygan.run.folder import RunFolder
from tinygan.run.metrics_file import read_metrics
from tinygan.run.pictures import write_grid
from tinygan.run.plane import write_points
from tinygan.run.rebuild import Generator, Player, load_generator, load_player
from tinygan.run.sine_pictures import write_curve_picture

# What is not worth a word in `info`.
USUAL: dict[str, object] = {"penalty": None, "clip": None, "instance_noise": 0.0, "packing": 1}
USUAL |= {"d_norm": None, "real_target": 1.0, "precision": "float32"}


def sample(given: argparse.Namespace) -> None:
    """Draw from G into a .npz (`samples`) or a .png.

    Images are float32 NHWC in the data's range, points and curves float32 (N, D); points of a run
    on a user's own file are float64, in the numbers of that file. From a conditional G, the .npz
    also holds `labels` (int64), those that were asked for.
    """
    out: Path = given.out or given.run / "generated.npz"
    if out.suffix not in (".npz", ".png"):
        raise OptionError(f"--out {out}: expected a name that ends in .npz or .png")
    generator = _load(given)
    labels = generator.labels(given.n, _asked(given.labels))
    samples = generator.own_numbers(generator.samples(given.n, given.seed, labels))
    kind, (low, high) = generator.preset.kind, generator.preset.value_range
    about: dict[str, Any] = {} if labels is None else {"labels": labels}
    within = ""
    if kind == "images":
        about["value_range"] = np.array([low, high], np.float32)
        within = f" in [{low:g}, {high:g}]"
    if out.suffix == ".png":
        _draw(out, samples, generator, given.labels)
    else:
        content = io.BytesIO()
        np.savez(content, samples=samples, **about)
        write_bytes(out, content.getvalue())
    print(
        f"{out}: {given.n} {kind} {samples.shape[1:]}{within} from "
        f"{generator.describe()}, seed {given.seed}{_of_labels(labels)}"
    )


def _load(given: argparse.Namespace) -> Generator:
    """G with the weights and statistics that the command line asks for."""
    return load_generator(
        given.run, given.checkpoint, given.backend, given.average_from, given.refresh
    )


def _load_discriminator(given: argparse.Namespace) -> Player:
    """D in the same way; its statistics could not be made anew without the data."""
    if given.refresh:
        raise OptionError("--refresh is for G: D's statistics are of the data, too")
    return load_player(given.run, "D", given.checkpoint, given.backend, given.average_from)


def _draw(out: Path, samples: np.ndarray, generator: Generator, labels: str | None) -> None:
    """One picture of them, as fits their kind."""
    kind, value_range = generator.preset.kind, generator.preset.value_range
    if kind == "images":
        write_grid(out, samples, _grid(len(samples), generator, labels), value_range)
    elif kind == "points":
        write_points(out, samples)
    else:
        write_curve_picture(out, samples, generator.manifest["data"].get("name"))


def _asked(words: str | None) -> list[int] | None:
    """--labels: "balanced" (every class in turn) is None, "0,1,2" those, in turn."""
    if words is None:
        return None
    if words == "balanced":
        return []
    try:
        return [int(word) for word in words.split(",")]
    except ValueError:
        raise OptionError(
            f"--labels: expected balanced, or labels such as 0,1,2, given {words!r}"
        ) from None


def _of_labels(labels: np.ndarray | None) -> str:
    if labels is None:
        return ""
    return f", labels {', '.join(map(str, np.unique(labels)))}"


def _grid(n: int, generator: Generator, words: str | None) -> tuple[int, int]:
    """Rows and columns for n images: as good as square, or a column for each label asked for."""
    classes = len(_asked(words) or range(generator.preset.labels.classes))
    columns = classes if 1 < classes <= n else math.ceil(math.sqrt(n))
    return math.ceil(n / columns), columns


def export(given: argparse.Namespace) -> None:
    """Write a player's tensors, and what they are, for other libraries."""
    if given.to.suffix != ".safetensors":
        raise OptionError(f"--to {given.to}: expected a name that ends in .safetensors")
    player = _load(given) if given.player == "G" else _load_discriminator(given)
    tensors, about = describe_player(player)
    write_bytes(given.to, to_safetensors(tensors, about))
    count = player.network.parameter_count
    print(
        f"{given.to}: {given.player} of {player.preset.name}, {player.describe()}: "
        f"{len(tensors)} tensors, {count:,} parameters"
    )


def info(given: argparse.Namespace) -> None:
    """Say what a run is, how far it is, and what it measured."""
    place = RunFolder(given.run)
    manifest = place.read_manifest()
    options, data = manifest["options"], manifest["data"]
    backend, recipe = manifest["backend"], manifest["recipe"]
    show("run", given.run)
    show("preset", f"{manifest.get('preset')} ({recipe.get('source', 'unknown source')})")
    kind = recipe.get("kind", "images")
    show("data", f"{data.get('images')} {kind} {data.get('shape')} of {data.get('name')}")
    names = ["batch_size", "k", "order", "objective", "loss", "lr", "seed"]
    names += [name for name, usual in USUAL.items() if options.get(name, usual) != usual]
    names += ["penalty_weight"] if options.get("penalty") else []
    if options.get("conditional"):
        show("labels", f"{options['conditional']}, told to both players")
    show("options", ", ".join(f"{name.replace('_', ' ')} {options.get(name)}" for name in names))
    show("backend", f"{backend.get('name')}, {backend.get('dtype')}, {backend.get('device')}")
    show("versions", ", ".join(f"{k} {v}" for k, v in manifest["versions"].items()))
    if isinstance(git := manifest.get("git"), dict):
        changed = " with local changes" if git.get("dirty") else ""
        show("git", f"{git.get('commit')}"[:12] + changed)
    show("command", manifest.get("command"))
    sessions = [each for each in manifest["sessions"] if isinstance(each, dict)]
    spent = sum(session.get("seconds", 0) for session in sessions)
    show(
        "started",
        f"{manifest.get('started')}; {spent:,.0f} s of training in {len(sessions)} go(es)",
    )
    steps = [checkpoint.step for checkpoint in list_checkpoints(place.checkpoints)]
    show("checkpoints", ", ".join(map(str, steps)) or "none")
    if place.metrics.exists() and (rows := read_metrics(place.metrics))["step"]:
        known = {name: rows[name][-1] for name in METRICS if not math.isnan(rows[name][-1])}
        last = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        show("last metrics", f"step {rows['step'][-1]:.0f}, epoch {rows['epoch'][-1]:.0f}: {last}")
    for warning in (each for each in manifest["warnings"] if isinstance(each, dict)):
        show("warning", f"step {warning.get('step')}: {warning.get('warning')}")
    for result in read_results(place.evaluation):
        show("evaluation", describe(result))


def show(name: str, value: object) -> None:
    print(f"{name:<13} {value}")


def presets(given: argparse.Namespace) -> None:
    """One line for each preset: name, parameters of G and D, what it is, where it comes from."""
    print(f"{'preset':<17} {'G':>10} {'D':>10}  recipe (source)")
    backend = get_backend("numpy")
    for preset in PRESETS.values():
        G = Network(preset.generator(None, preset.labels), (preset.latent,), backend, "G")
        D = Network(preset.make_discriminator(), G.output_shape, backend, "D")
        counts = f"{G.parameter_count:>10,} {D.parameter_count:>10,}"
        print(f"{preset.name:<17} {counts}  {preset.summary} ({preset.source})")


def evaluate(given: argparse.Namespace) -> None:
    """Measure a run and keep the figure in its evaluation.json."""
    place = RunFolder(given.run)
    read_results(place.evaluation)  # rather now than after the work
    if given.metric != "parzen" and given.split is not None:
        raise OptionError("--split goes with --metric parzen")
    generator = _load(given)
    if given.metric != "modes":
        require_images(generator, given.metric)
    if given.metric == "modes":
        result = evaluate_modes(generator, given.seed)
    elif given.metric == "agreement":
        result = evaluate_agreement(generator, given.data_dir, given.seed)
    else:
        result = evaluate_parzen(generator, given.split or "test", given.data_dir, given.seed)
    print(describe(result), flush=True)  # first: the folder may be one that we cannot write to
    append_result(place.evaluation, result)
    if result.get("validation_was_trained_on"):
        print(
            "note: this run trained on the images that sigma was chosen on "
            "(goodfellow2014 holds them out)",
            file=sys.stderr,
        )
