"""The options that every training example shares, checked and resolved.

A new run takes its preset's values with the command line's on top. A resumed run takes what its
run.json recorded; only how long it goes on and how often it writes may then be said anew.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tinygan.errors import DataError, OptionError
from tinygan.presets import MLPS, PRESETS, Labels, Preset
from tinygan.run.arguments import OneLineParser, one_line_errors, one_of, positive, whole
from tinygan.run.folder import Manifest, RunFolder

DATA_HELP = "default: mnist; auto takes strokes where MNIST cannot be had"
DEFAULTS: dict[str, Any] = {
    "backend": "auto",
    "dtype": "float32",
    "seed": 0,
    "data": "mnist",
    "data_dir": None,
    "conditional": None,
    "sample_every": 200,
    "checkpoint_every": 1000,
    "log_every": 10,
    "keep_last": 3,
    "keep_every": None,
    "tensorboard": False,
}
CONDITIONAL = {"one-hot": Labels(10), "embedding": Labels(10, 50)}  # the digits
YOUNGER: dict[str, Any] = {"conditional": None, "tensorboard": False}  # than some run folders
OF_THE_PRESET = (
    "batch_size",
    "prior",
    "k",
    "order",
    "objective",
    "loss",
    "lr",
)  # fields an option overrides
LENGTH = ("steps", "epochs")
MAY_CHANGE = (
    *LENGTH,
    "sample_every",
    "checkpoint_every",
    "keep_last",
    "keep_every",
    "data_dir",
    "tensorboard",
)


@dataclass(frozen=True)
class Options:
    """What a training program needs to know; `preset` carries the overridden fields."""

    preset: Preset
    backend: str
    dtype: str
    seed: int
    data: str
    data_dir: Path | None
    conditional: str | None
    steps: int | None
    epochs: int | None
    sample_every: int | None  # None: as the preset says, in epochs
    checkpoint_every: int | None
    log_every: int
    keep_last: int
    keep_every: int | None
    tensorboard: bool
    folder: Path
    resume: bool = False
    from_step: int | None = None
    recorded: Manifest | None = None  # the run.json of a resumed run

    def values(self) -> dict[str, Any]:
        """Every resolved option by name, as run.json holds them."""
        own = {name: getattr(self, name) for name in (*DEFAULTS, *LENGTH)}
        own["data_dir"] = None if self.data_dir is None else str(self.data_dir.absolute())
        overridden = {name: getattr(self.preset, name) for name in OF_THE_PRESET}
        return {"preset": self.preset.name, **overridden, **own}

    def steps_per_epoch(self, images: int) -> int:
        """G's updates while D sees every whole minibatch of `images` images once.

        The last, incomplete minibatch is dropped. Raises DataError when there is no whole one.
        """
        if self.preset.batch_size > images:
            raise DataError(
                f"--batch-size {self.preset.batch_size} is larger than the data set "
                f"({images} images): choose a smaller one"
            )
        return max(1, images // self.preset.batch_size // self.preset.k)

    def total_steps(self, images: int) -> int:
        """The step at which the run ends: --steps, or --epochs of whole minibatches."""
        if self.epochs is not None:
            return self.epochs * self.steps_per_epoch(images)
        if self.steps is None:
            raise OptionError(f"preset {self.preset.name} has no length: give --steps or --epochs")
        return self.steps

    def steps_between(self, what: str, images: int) -> int:
        """Steps from one "sample" grid, or "checkpoint", to the next."""
        steps, epochs = getattr(self, f"{what}_every"), getattr(self.preset, f"{what}_every_epochs")
        if steps is None and epochs is not None:
            return int(epochs) * self.steps_per_epoch(images)
        return int(steps or DEFAULTS[f"{what}_every"])


def parse_options(
    argv: Sequence[str] | None, description: str | None, presets: Mapping[str, Preset]
) -> Options:
    """Read the command line (None: the program's own).

    A bad value prints one line, `error: ...`, and exits with status 2.
    """
    with one_line_errors():
        given = vars(_parser(description, presets).parse_args(argv))
        if given.get("resume") is not None:
            return _resumed(given, presets)
        if "checkpoint" in given:
            raise OptionError("--checkpoint goes with --resume")
        if "preset" not in given:
            raise OptionError(f"give --preset (one of: {', '.join(presets)}) or --resume")
        return _new(given, presets)


def _parser(description: str | None, presets: Mapping[str, Preset]) -> argparse.ArgumentParser:
    parser = OneLineParser(
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # only what was given is in the result
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--preset", type=_preset_of(presets), metavar="NAME", help=", ".join(presets))
    add("--backend", choices=("auto", "numpy", "cupy"), help="where to compute (default: auto)")
    add("--dtype", choices=("float32", "float64"), help="default: float32")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=whole(1), metavar="N", help="updates of G in total")
    length.add_argument(
        "--epochs", type=whole(1), metavar="N", help="passes over the data in total"
    )
    add("--batch-size", type=whole(1), metavar="M", help="images in a minibatch")
    add("--k", type=whole(1), metavar="K", help="updates of D for each update of G")
    add("--order", choices=("paper", "simultaneous", "alternating"), help="who moves when")
    add("--objective", choices=("minimax", "non-saturating"), help="what G descends")
    add("--loss", choices=("probabilities", "logits"), help="the form of the cross entropy")
    add("--lr", type=positive, metavar="LR", help="learning rate of both players")
    add("--seed", type=whole(0, 2**64 - 1), metavar="S", help="all randomness (default: 0)")
    add(
        "--conditional",
        nargs="?",
        const="one-hot",
        choices=tuple(CONDITIONAL),
        help="tell both players the digit, one-hot or as a learned vector",
    )
    add("--prior", choices=("normal", "uniform"), help="of z, both with variance 1")
    add("--data", choices=("mnist", "strokes", "auto"), help=DATA_HELP)
    add("--data-dir", type=Path, metavar="DIR", help="folder that holds the idx files")
    add("--out", type=Path, metavar="DIR", help="a new run folder (default: runs/PRESET-DATE)")
    add("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    add("--checkpoint", type=whole(0), metavar="STEP", help="resume from this older checkpoint")
    add("--sample-every", type=whole(1), metavar="N", help="steps between sample grids")
    add("--checkpoint-every", type=whole(1), metavar="N", help="steps between checkpoints")
    add("--log-every", type=whole(1), metavar="N", help="steps between rows of metrics.csv")
    add("--keep-last", type=whole(1), metavar="K", help="newest checkpoints kept (default: 3)")
    add("--keep-every", type=whole(1), metavar="M", help="keep each M-th step's checkpoint, too")
    add(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        help="write event files for TensorBoard into the run folder",
    )
    return parser


def _preset_of(presets: Mapping[str, Preset]) -> Callable[[str], str]:
    """A preset's name; one that the other example trains is answered with that example."""
    known = one_of(presets, "preset")

    def convert(text: str) -> str:
        if text in PRESETS and text not in presets:
            example = "train_mlp_gan.py" if text in MLPS else "train_dcgan.py"
            raise argparse.ArgumentTypeError(f"{text} is trained by examples/{example}")
        return known(text)

    return convert


def _new(given: dict[str, Any], presets: Mapping[str, Preset]) -> Options:
    preset = presets[given["preset"]]
    folder = given.get("out") or _fresh_folder(preset.name)
    RunFolder(folder).refuse_used()
    if not (given.keys() & set(LENGTH)):
        given |= {"steps": preset.steps, "epochs": preset.epochs}
    return _options(preset, {**DEFAULTS, **_suggested(preset), **given}, folder=folder)


def _suggested(preset: Preset) -> dict[str, Any]:
    """How often a preset's source samples and saves, where the preset says so."""
    names = ("sample_every", "checkpoint_every", "log_every", "keep_last", "keep_every")
    said = {name: getattr(preset, name) for name in names}
    said = {name: value for name, value in said.items() if value is not None}
    for name in ("sample_every", "checkpoint_every"):
        if getattr(preset, f"{name}_epochs") is not None:
            said[name] = None
    return said


def _resumed(given: dict[str, Any], presets: Mapping[str, Preset]) -> Options:
    folder = given["resume"]
    if "out" in given:
        raise OptionError("--out cannot go with --resume: a run goes on in its own folder")
    manifest = RunFolder(folder).read_manifest()
    recorded = _recorded(folder, manifest["options"], presets)
    for name, value in given.items():
        if name == "backend" and value == "auto":
            continue  # it stays on the recorded one
        if name in recorded and name not in MAY_CHANGE and value != recorded[name]:
            option = "--" + name.replace("_", "-")
            has = f"{option} {recorded[name]}" if recorded[name] is not None else f"no {option}"
            raise OptionError(
                f"{option} {value} conflicts with the run in {folder}, which has {has}: "
                "leave it out, or start a new run"
            )
    if given.keys() & set(LENGTH):
        recorded = {**recorded, "steps": None, "epochs": None}
    merged = {**DEFAULTS, **recorded, **given, "backend": recorded["backend"]}
    return _options(
        presets[recorded["preset"]],
        merged,
        folder=folder,
        resume=True,
        from_step=given.get("checkpoint"),
        recorded=manifest,
    )


def _recorded(
    folder: Path, options: Mapping[str, Any], presets: Mapping[str, Preset]
) -> dict[str, Any]:
    """The options in a run.json, checked as a command line is: somebody may have edited them."""
    words = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{option}" if value else f"--no-{option}"]
        elif value is not None:
            words += [f"--{option}={value}"]
    try:
        given = vars(_parser(None, presets).parse_args(words))
    except OptionError as problem:
        raise OptionError(f"{folder}/run.json cannot be resumed: {problem}") from None
    if missing := {"preset", "backend"} - given.keys():
        raise OptionError(f"{folder}/run.json cannot be resumed: it has no {missing.pop()}")
    return {**YOUNGER, **dict.fromkeys(options), **given}


def overridden(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with the fields that `values`, options of a command line or run.json, override."""
    fields = {name: values[name] for name in OF_THE_PRESET if name in values}
    if (kind := values.get("conditional")) is not None:
        if not isinstance(kind, str) or kind not in CONDITIONAL:
            raise OptionError(f"conditional {kind!r} is not one of {', '.join(CONDITIONAL)}")
        labels = CONDITIONAL[kind]
        fields |= {"labels": labels, "grid": (preset.grid[0], labels.classes)}
    return dataclasses.replace(preset, **fields)


def _options(preset: Preset, values: Mapping[str, Any], **rest: Any) -> Options:
    own: dict[str, Any] = {name: values.get(name) for name in (*DEFAULTS, *LENGTH)}
    preset = overridden(preset, values)
    if preset.order == "simultaneous" and preset.k != 1:
        raise OptionError(
            f"--k {preset.k} does not go with simultaneous play, in which both players move once: "
            "add --order paper"
        )
    return Options(preset=preset, **own, **rest)


def _fresh_folder(name: str) -> Path:
    """runs/<name>-<date>-<time>, with a number behind it when two runs start in one second."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / stem, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{stem}-{number}"
    return folder
