"""Figures of merit for a finished run, kept in its evaluation.json."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tinygan.data import Dataset, load_dataset
from tinygan.data.worlds import MIXTURES, load_world
from tinygan.errors import OptionError
from tinygan.metrics import modes, parzen
from tinygan.run.atomic import write_json
from tinygan.run.manifest import check_data, describe_data
from tinygan.run.rebuild import Generator

KINDS = ("parzen", "agreement", "modes")
SAMPLES = 10_000
VALIDATION = 10_000  # the last images of the training set
SIGMA_POINTS = 1_000  # of them, the first: sigma is chosen on these


def evaluate_parzen(
    generator: Generator, split: str = "test", data_dir: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """The Parzen-window log-likelihood as Goodfellow et al. 2014 (Table 1) measured it.

    10 000 samples in [0, 1]; sigma from logspace(-1, 0, 10) chosen on 1 000 validation images, out
    of the last 10 000 of the training set; mean ± standard error in nats over all test images, or
    (`split` = "validation") over the 9 000 other validation images: for choosing a checkpoint.
    """
    train, test = load_splits(generator, data_dir)
    held_out = train.images[-VALIDATION:]
    for_sigma, rest = _flat(held_out[:SIGMA_POINTS]), held_out[SIGMA_POINTS:]
    points = rest if split == "validation" else test.images
    trained_on = train.first(generator.preset.train_images)
    low, high = generator.preset.value_range
    samples = (generator.samples(SAMPLES, seed) - low) / (high - low)
    score = parzen(samples.reshape(len(samples), -1), for_sigma, _flat(points))
    return {
        "metric": "parzen",
        "step": generator.step,
        "weights": generator.describe(),
        "data": train.name,
        "split": split,
        "points": len(points),
        "samples": len(samples),
        "seed": seed,
        "mean": score.mean,
        "standard_error": score.standard_error,
        "sigma": score.sigma,
        "validation_was_trained_on": len(trained_on) > len(train) - VALIDATION,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def evaluate_modes(generator: Generator, seed: int = 0) -> dict[str, Any]:
    """Modes covered and share of good samples, of 2 500 samples, as PacGAN counts them.

    Raises OptionError for data whose modes are not known, DataError for other data than the run's.
    """
    name = _data_of(generator)
    if generator.preset.kind != "points" or name not in MIXTURES:
        raise OptionError(
            f"--metric modes is for data with known modes ({', '.join(MIXTURES)}): "
            f"this run was trained on {generator.manifest['data'].get('name', name)}"
        )
    data = load_world(name)
    check_data(generator.manifest["data"], describe_data(data))
    score = modes.mode_coverage(generator.samples(modes.SAMPLES, seed), MIXTURES[name]())
    return {
        "metric": "modes",
        "step": generator.step,
        "weights": generator.describe(),
        "data": data.name,
        "samples": score.samples,
        "seed": seed,
        "covered": score.covered,
        "quality": score.quality,
        "reverse_kl": score.reverse_kl,
        "each_mode": list(score.counts),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _data_of(generator: Generator) -> str:
    """What the run was trained on, as its options have it."""
    if "data" not in generator.manifest["options"]:
        raise OptionError("the run.json of this run does not say which data it was trained on")
    return str(generator.manifest["options"]["data"])


def require_images(generator: Generator, metric: str) -> None:
    """Raise OptionError unless it is images that this G makes."""
    if generator.preset.kind != "images":
        raise OptionError(f"--metric {metric} is for images: this G makes {generator.preset.kind}")


def load_splits(generator: Generator, data_dir: Path | None = None) -> tuple[Dataset, Dataset]:
    """The training and the test set of a run, all of it, at the size that its G draws.

    Raises DataError when the training images are not those that the run was started with.
    """
    options, preset = generator.manifest["options"], generator.preset
    recorded = options.get("data_dir")
    if data_dir is None and recorded is not None and Path(recorded).is_dir():
        data_dir = Path(recorded)
    name = _data_of(generator)
    train = load_dataset(name, "train", data_dir).padded(preset.image_size)
    seen = train.first(preset.train_images)
    check_data(generator.manifest["data"], describe_data(seen))  # else the figure means nothing
    return train, load_dataset(name, "test", data_dir).padded(preset.image_size)


def _flat(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) as float32 (N, D) in [0, 1]."""
    flat: np.ndarray = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    return flat


def describe(result: dict[str, Any]) -> str:
    """One line for one result."""
    which = result.get("weights", f"checkpoint {result['step']}")
    if result.get("metric") == "agreement":
        each = " ".join(f"{100 * share:.1f}" for share in result["each_label"])
        return (
            f"a classifier sees the label asked for in {100 * result['agreement']:.2f} % of "
            f"{result['samples']} samples (label by label: {each}); it is right in "
            f"{100 * result['classifier_accuracy']:.2f} % of {result['test_images']} real "
            f"{result['data']} test images ({which})"
        )
    if result.get("metric") == "modes":
        share, each = result["quality"], " ".join(map(str, result["each_mode"]))
        return (
            f"{result['covered']} of {len(result['each_mode'])} modes of {result['data']}, "
            f"{100 * share:.1f} % of {result['samples']} samples are good "
            f"(by mode: {each}; {which})"
        )
    return (
        f"Parzen log-likelihood of {result['points']} {result['data']} {result['split']} images: "
        f"{result['mean']:.1f} ± {result['standard_error']:.1f} nats (sigma {result['sigma']:.4g}, "
        f"{result['samples']} samples, {which})"
    )


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in an evaluation.json, oldest first; none if there is no such file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as problem:
        raise OptionError(f"cannot read {path}: {problem}; move it away") from problem
    if not isinstance(results, list) or not all(map(_is_result, results)):
        raise OptionError(f"{path} is not a list of results: move it away")
    return results


def _is_result(result: Any) -> bool:
    """Whether it is one that can be put into words."""
    try:
        return result.get("metric", "parzen") in KINDS and bool(describe(result))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return False


def append_result(path: Path, result: dict[str, Any]) -> None:
    """Add one result to an evaluation.json, atomically."""
    write_json(path, [*read_results(path), result])
