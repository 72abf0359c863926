"""Data sets: MNIST, digits drawn from strokes, worlds of the plane, sine curves."""

from __future__ import annotations

from pathlib import Path

from tinygan.data.curves import AMPLITUDES, curves
from tinygan.data.dataset import Dataset
from tinygan.data.minibatches import Minibatches
from tinygan.data.mnist import load_mnist
from tinygan.data.points import Mixture, PointBatches, PointSet
from tinygan.data.strokes import strokes
from tinygan.data.worlds import WORLDS, load_world
from tinygan.errors import DataError, DownloadError

__all__ = [
    "CURVES",
    "WORLDS",
    "Dataset",
    "DownloadError",
    "Minibatches",
    "Mixture",
    "PointBatches",
    "PointSet",
    "load_curves",
    "load_dataset",
    "load_mnist",
    "load_world",
    "strokes",
]

CURVES = tuple(AMPLITUDES)


def load_curves(name: str) -> PointSet:
    """The curves called `name`: one of CURVES."""
    return curves(family=name == "sine-family")


def load_dataset(
    name: str = "mnist", split: str = "train", data_dir: Path | None = None
) -> Dataset:
    """The data set called `name`, "mnist", "strokes" or "auto"; `split` is "train" or "test".

    "auto" is MNIST, or strokes where there is no file of it here and no mirror answers.

    `data_dir` is a folder with idx files, for "mnist" only. Raises DataError.
    """
    if name == "auto":
        try:
            return load_mnist(split, data_dir)
        except DownloadError:
            return load_dataset("strokes", split)
    if name == "mnist":
        return load_mnist(split, data_dir)
    if name != "strokes":
        raise DataError(f"unknown data set {name!r}: expected one of mnist, strokes, auto")
    if data_dir is not None:
        raise DataError(f"strokes are drawn, not read: leave out the data folder ({data_dir})")
    return strokes(60_000 if split == "train" else 10_000, split=split)
