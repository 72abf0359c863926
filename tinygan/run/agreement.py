"""How often a classifier of real images sees in G's images the label that was asked for.

The classifier is trained once and kept in the user's cache folder, beside the data sets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tinygan.backend import Backend, get_backend
from tinygan.data import Dataset
from tinygan.errors import CheckpointError, OptionError
from tinygan.metrics import classifier
from tinygan.nn import Network
from tinygan.run.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from tinygan.run.evaluate import load_splits
from tinygan.run.loop import say
from tinygan.run.rebuild import Generator

SAMPLES = 10_000


def evaluate_agreement(
    generator: Generator, data_dir: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """The share of 10 000 images, every label asked for equally often, that a classifier confirms.

    The classifier saw real images only; its accuracy on the real test images stands beside the
    figure. Raises OptionError for a G without labels, DataError for other data than the run's.
    """
    classes = generator.preset.labels.classes
    if not classes:
        raise OptionError("--metric agreement is for runs with --conditional: this G has no labels")
    train, test = load_splits(generator, data_dir)
    backend = get_backend(generator.network.backend.name, "float32")
    judge = load_classifier(train, classes, backend)
    asked = generator.labels(SAMPLES)
    low, high = generator.preset.value_range
    images = (generator.samples(SAMPLES, seed, asked) - low) / (high - low)
    share, each = classifier.agreement(classifier.predict(judge, images), asked, classes)
    right = classifier.predict(judge, test.images) == test.labels
    return {
        "metric": "agreement",
        "step": generator.step,
        "weights": generator.describe(),
        "data": train.name,
        "samples": len(images),
        "seed": seed,
        "agreement": share,
        "each_label": each,
        "classifier_accuracy": float(right.mean()),
        "test_images": len(right),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def load_classifier(train: Dataset, classes: int, backend: Backend) -> Network:
    """A classifier of these images, from the cache folder or trained now (a few minutes).

    It is kept under everything that it depends on: data, recipe, version. A damaged one is
    trained anew.
    """
    recipe = classifier.RECIPE
    network = classifier.make_classifier(train.image_shape, classes, backend, recipe)
    folder = cache_folder() / _key(train, classes)
    kept = list_checkpoints(folder)
    if kept:
        try:
            load_checkpoint(kept[-1], {"classifier": network})
            return network
        except CheckpointError as damage:
            say(f"{damage}: training it anew")
    say(f"training a classifier on {len(train):,} real images of {train.name}, once")
    classifier.train_classifier(
        network,
        train.images,
        train.labels,
        recipe,
        lambda epoch, loss: say(f"  epoch {epoch} of {recipe.epochs}: loss {loss:.3f}"),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"data": train.name, "recipe": dataclasses.asdict(recipe)}
        save_checkpoint(folder, recipe.epochs, {"classifier": network}, about)
    except (OSError, CheckpointError) as problem:
        say(f"the classifier cannot be kept for the next time: {problem}")
    return network


def cache_folder() -> Path:
    """Where classifiers are kept: classifiers/ in tinygan's part of the user's cache."""
    import pooch  # slow to import: when it is used

    return Path(pooch.os_cache("tinygan")) / "classifiers"


def _key(train: Dataset, classes: int) -> str:
    """A name for all that a trained classifier is a function of."""
    content = [np.ascontiguousarray(a) for a in (train.images, train.labels)]
    whole = {
        "version": classifier.VERSION,
        "recipe": dataclasses.asdict(classifier.RECIPE),
        "classes": classes,
        "shape": train.images.shape,
        "data": [hashlib.sha256(array.data).hexdigest() for array in content],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
