"""The options that every training example shares, checked and resolved.

A new run takes its preset's values with the command line's on top. A resumed run takes what its
run.json recorded; only how long it goes on and how often it writes may then be said anew.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tinygan.errors import DataError, OptionError
from tinygan.gan.objectives import CROSS_ENTROPIES
from tinygan.presets import PAIRS, PRESETS, Preset
from tinygan.run.arguments import one_line_errors
from tinygan.run.folder import Manifest, RunFolder
from tinygan.run.parser import CONDITIONAL, make_parser
from tinygan.run.schedule import Schedule

DEFAULTS: dict[str, Any] = {
    "backend": "auto",
    "dtype": "float32",
    "precision": "float32",
    "seed": 0,
    "data": None,
    "data_dir": None,
    "conditional": None,
    "sample_every": 200,
    "checkpoint_every": 1000,
    "log_every": 10,
    "keep_last": 3,
    "keep_every": None,
    "tensorboard": False,
}
YOUNGER: dict[str, Any] = {  # than some run folders
    "conditional": None,
    "tensorboard": False,
    "precision": "float32",
}
OF_THE_PRESET = (
    "batch_size",
    "prior",
    "k",
    "order",
    "objective",
    "loss",
    "lr",
    "real_target",
    "penalty",
    "penalty_weight",
    "clip",
    "instance_noise",
    "packing",
    "d_norm",
)  # fields an option overrides
OF_A_PLAYER = (*OF_THE_PRESET, "conditional", "dtype")  # what one is made again from
LENGTH = ("steps", "epochs")
NULLABLE = {  # where None means: there is none
    *(*LENGTH, "sample_every", "checkpoint_every", "keep_every", "data_dir", "conditional"),
    *("penalty", "clip", "d_norm"),
}
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
    precision: str
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
    live: bool = False
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
        batch = self.preset.samples_per_batch
        if batch > images:
            packs = f" in packs of {self.preset.packing}" if self.preset.packing > 1 else ""
            fits = images // self.preset.packing
            advice = f"choose {fits} or less" if fits else "choose a smaller --packing"
            raise DataError(
                f"--batch-size {self.preset.batch_size}{packs} is larger than the data set "
                f"({images} {self.preset.kind}): {advice}"
            )
        return max(1, images // batch // self.preset.k)

    def total_steps(self, images: int) -> int:
        """The step at which the run ends: --steps, or --epochs of whole minibatches."""
        if self.epochs is not None:
            return self.epochs * self.steps_per_epoch(images)
        if self.steps is None:
            raise OptionError(f"preset {self.preset.name} has no length: give --steps or --epochs")
        return self.steps

    def schedule(self, images: int) -> Schedule:
        """All that a run needs to know of it, for a data set of so many images."""
        return Schedule(
            total_steps=self.total_steps(images),
            steps_per_epoch=self.steps_per_epoch(images),
            samples_per_step=self.preset.samples_per_batch * self.preset.k,
            sample_every=self._steps_between("sample", images),
            checkpoint_every=self._steps_between("checkpoint", images),
            log_every=self.log_every,
            keep_last=self.keep_last,
            keep_every=self.keep_every,
        )

    def _steps_between(self, what: str, images: int) -> int:
        """Steps from one "sample" grid, or "checkpoint", to the next."""
        steps, epochs = getattr(self, f"{what}_every"), getattr(self.preset, f"{what}_every_epochs")
        if steps is None and epochs is not None:
            return int(epochs) * self.steps_per_epoch(images)
        return int(steps or DEFAULTS[f"{what}_every"])


def parse_options(
    argv: Sequence[str] | None,
    description: str | None,
    presets: Mapping[str, Preset],
    default: str | None = None,
) -> Options:
    """Read the command line (None: the program's own). `default` is the preset if none is given.

    A bad value prints one line, `error: ...`, and exits with status 2.
    """
    with one_line_errors():
        given = vars(make_parser(description, presets).parse_args(argv))
        live = given.pop("live", False)
        if given.get("resume") is not None:
            return dataclasses.replace(_resumed(given, presets), live=live)
        if "checkpoint" in given:
            raise OptionError("--checkpoint goes with --resume")
        if default is not None:
            given.setdefault("preset", default)
        if "preset" not in given:
            raise OptionError(f"give --preset (one of: {', '.join(presets)}) or --resume")
        return dataclasses.replace(_new(given, presets), live=live)


def _spelt_out(given: dict[str, Any]) -> dict[str, Any]:
    """The same with a pair's name as its parts, as far as they were not given themselves."""
    pair = PAIRS.get(given.get("objective", ""), {})
    given = {**pair, **given, **({"objective": pair["objective"]} if pair else {})}
    return {**given, "penalty": None} if given.get("penalty") == "none" else given


def _fitting(given: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """What was given to a new run, and what of its preset cannot go with that."""
    given = _spelt_out(given)
    if given.get("objective", preset.objective) not in CROSS_ENTROPIES:
        given.setdefault("loss", "logits")
    if given.get("k", 1) > 1 and preset.order == "simultaneous":
        given.setdefault("order", "paper")
    return given


def _new(given: dict[str, Any], presets: Mapping[str, Preset]) -> Options:
    preset = presets[given["preset"]]
    weighted = "penalty_weight" in given
    given = _fitting(given, preset)
    if weighted and given.get("penalty", preset.penalty) is None:
        raise OptionError("--penalty-weight is the weight of a penalty: give --penalty, too")
    folder = given.get("out") or _fresh_folder(preset.name)
    RunFolder(folder).refuse_used()
    if not (given.keys() & set(LENGTH)):
        given |= {"steps": preset.steps, "epochs": preset.epochs}
    return _options(
        preset, {**DEFAULTS, "data": preset.data, **_suggested(preset), **given}, folder=folder
    )


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
    recorded = recorded_options(folder, manifest["options"], presets)
    for name in ("preset", "backend", "data"):
        if name not in recorded:
            raise OptionError(f"{folder}/run.json cannot be used: it has no {name}")
    # How D is called changes its dropout's draws, and nothing else: an older run keeps its way.
    combined = manifest["recipe"].get("combined", False) is True
    preset = dataclasses.replace(presets[recorded["preset"]], combined=combined)
    files = all(str(each.get("data")).endswith(".npy") for each in (given, recorded))
    may_change = (*MAY_CHANGE, "data") if files else MAY_CHANGE  # one moved; contents are compared
    for name, value in _spelt_out(given).items():
        if name not in given and name in ("k", "penalty_weight"):
            continue  # the pair's, which the run may have been started without
        if name == "backend" and value == "auto":
            continue  # it stays on the recorded one
        had = recorded[name] if name in recorded else getattr(preset, name, value)
        if name not in may_change and value != had:
            option = "--" + name.replace("_", "-")
            has = f"{option} {had}" if had is not None else f"no {option}"
            raise OptionError(
                f"{option} {given.get(name, value)} conflicts with the run in {folder}, which has "
                f"{has}: leave it out, or start a new run"
            )
    if given.keys() & set(LENGTH):
        recorded = {**recorded, "steps": None, "epochs": None}
    changed = {name: given[name] for name in may_change if name in given}
    merged = {**DEFAULTS, **recorded, **changed, "backend": recorded["backend"]}
    return _options(
        preset,
        merged,
        folder=folder,
        resume=True,
        from_step=given.get("checkpoint"),
        recorded=manifest,
    )


def recorded_options(
    folder: Path, options: Mapping[str, Any], presets: Mapping[str, Preset] = PRESETS
) -> dict[str, Any]:
    """The options in a run.json, checked as a command line is: somebody may have edited them.

    Raises OptionError, with the folder, for the first that no command line could have given.
    """
    words = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if value is None and name not in NULLABLE:
            raise OptionError(f"{folder}/run.json cannot be used: its option {name} is null")
        if isinstance(value, bool):
            words += [f"--{option}" if value else f"--no-{option}"]
        elif value is not None:
            words += [f"--{option}={value}"]
    try:
        given = vars(make_parser(None, presets).parse_args(words))
    except OptionError as problem:
        raise OptionError(f"{folder}/run.json cannot be used: {problem}") from None
    return {**YOUNGER, **dict.fromkeys(options), **given}


def overridden(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with the fields that `values`, options of a command line or run.json, override."""
    fields = {name: values[name] for name in OF_THE_PRESET if name in values}
    if (kind := values.get("conditional")) is not None:
        if not isinstance(kind, str) or kind not in CONDITIONAL:
            raise OptionError(f"conditional {kind!r} is not one of {', '.join(CONDITIONAL)}")
        if preset.kind != "images":
            raise OptionError(f"--conditional: {preset.kind} have no labels to tell")
        labels = CONDITIONAL[kind]
        fields |= {"labels": labels, "grid": (preset.grid[0], labels.classes)}
    if fields.get("objective", preset.objective) not in CROSS_ENTROPIES:
        fields |= {"flipped": False, "label_noise": 0.0}  # scores have no labels
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
    """runs/<name>-<date>-<time>-<process>: other runs may start in the same second."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    folder, number = Path("runs") / stem, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{stem}-{number}"
    return folder
