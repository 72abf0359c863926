"""Figures of merit for a finished run, kept in its evaluation.json."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tinygan.data import load_dataset
from tinygan.errors import OptionError
from tinygan.metrics import parzen
from tinygan.run.atomic import write_json
from tinygan.run.manifest import check_data, describe_data
from tinygan.run.rebuild import Generator

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
    data = str(generator.manifest["options"]["data"])
    recorded = generator.manifest["options"].get("data_dir")
    if data_dir is None and recorded is not None and Path(recorded).is_dir():
        data_dir = Path(recorded)
    train = load_dataset(data, "train", data_dir)
    seen = train.first(generator.preset.train_images)
    check_data(generator.manifest["data"], describe_data(seen))  # else the figure means nothing
    held_out = train.images[-VALIDATION:]
    for_sigma, rest = _flat(held_out[:SIGMA_POINTS]), held_out[SIGMA_POINTS:]
    points = rest if split == "validation" else load_dataset(data, "test", data_dir).images
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
        "validation_was_trained_on": generator.preset.train_images is None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _flat(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) as float32 (N, D) in [0, 1]."""
    flat: np.ndarray = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    return flat


def describe(result: dict[str, Any]) -> str:
    """One line for one result."""
    which = result.get("weights", f"checkpoint {result['step']}")
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
    except (OSError, ValueError) as problem:
        raise OptionError(f"cannot read {path}: {problem}; move it away") from problem
    needed = {"points", "data", "split", "mean", "standard_error", "sigma", "samples", "step"}
    if not isinstance(results, list) or any(
        not isinstance(result, dict) or not needed <= result.keys() for result in results
    ):
        raise OptionError(f"{path} is not a list of results: move it away")
    return results


def append_result(path: Path, result: dict[str, Any]) -> None:
    """Add one result to an evaluation.json, atomically."""
    write_json(path, [*read_results(path), result])
