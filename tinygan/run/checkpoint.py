"""Checkpoints: named tensors in a safetensors file beside a JSON that vouches for them.

`checkpoints/step_0001200.safetensors` holds the tensors "G/0.W", "G_opt/m", ...;
`checkpoints/step_0001200.json` holds the step, the tensors' names, types and shapes, and the size
and sha256 of the first file. The JSON is written last: a checkpoint exists once its JSON does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from tinygan.errors import CheckpointError
from tinygan.nn.network import Network
from tinygan.run.atomic import cannot_write, remove_leftovers, set_aside, write_bytes, write_json

FORMAT = 1
Tensors = dict[str, np.ndarray]


class Stateful(Protocol):
    """Anything a checkpoint can keep: a network, an optimiser."""

    def state(self) -> dict[str, np.ndarray]: ...

    def load(self, state: dict[str, np.ndarray], /) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """The place of one checkpoint; `read` verifies it and returns its tensors."""

    folder: Path
    step: int

    @property
    def tensor_path(self) -> Path:
        return self.folder / f"step_{self.step:07d}.safetensors"

    @property
    def json_path(self) -> Path:
        return self.folder / f"step_{self.step:07d}.json"

    def read(self) -> Tensors:
        """All tensors by name. Raises CheckpointError when a file is missing or damaged."""
        record = self._record()
        try:
            content = self.tensor_path.read_bytes()
        except OSError as problem:
            raise self._damaged(f"cannot read it: {problem.strerror or problem}") from problem
        if len(content) != record.get("size"):
            raise self._damaged(f"truncated: {len(content)} bytes, expected {record.get('size')}")
        if hashlib.sha256(content).hexdigest() != record.get("sha256"):
            raise self._damaged("its sha256 differs from the recorded one")
        try:
            return dict(safetensors.numpy.load(content))
        except (SafetensorError, ValueError, KeyError, TypeError) as problem:
            raise self._damaged(f"not a safetensors file: {problem}") from problem

    def _record(self) -> dict[str, object]:
        try:
            record = json.loads(self.json_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as problem:
            raise self._damaged(f"cannot read {self.json_path.name}: {problem}") from problem
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise self._damaged(f"{self.json_path.name} is not of checkpoint format {FORMAT}")
        if record.get("step") != self.step:
            raise self._damaged(f"{self.json_path.name} is of step {record.get('step')}")
        return record

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"checkpoint {self.tensor_path} is damaged ({why})")


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in `folder`, oldest first."""
    names = (re.fullmatch(r"step_(\d{7,})\.json", path.name) for path in folder.glob("*.json"))
    return [Checkpoint(folder, step) for step in sorted(int(m[1]) for m in names if m)]


def save_checkpoint(
    folder: Path, step: int, parts: Mapping[str, Stateful], about: Mapping[str, object]
) -> Checkpoint:
    """Write the state of every part. Raises CheckpointError when it cannot be written.

    A failed write leaves no partial file and no changed older checkpoint.
    """
    checkpoint = Checkpoint(folder, step)
    tensors = collect(parts)
    content = safetensors.numpy.save(tensors)
    record = {
        "format": FORMAT,
        "step": step,
        **about,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "tensors": {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()},
    }
    try:
        checkpoint.json_path.unlink(missing_ok=True)  # never an old JSON beside new tensors
    except OSError as problem:
        raise CheckpointError(cannot_write(checkpoint.json_path, problem)) from problem
    write_bytes(checkpoint.tensor_path, content, CheckpointError)
    try:
        write_json(checkpoint.json_path, record, CheckpointError)
    except CheckpointError:
        checkpoint.tensor_path.unlink(missing_ok=True)
        raise
    return checkpoint


def collect(parts: Mapping[str, Stateful]) -> Tensors:
    """The tensors of all parts as "part/name", contiguous and on the host."""
    return {
        f"{part}/{name}": np.array(tensor, order="C", copy=None)
        for part, stateful in parts.items()
        for name, tensor in stateful.state().items()
    }


def load_checkpoint(checkpoint: Checkpoint, parts: Mapping[str, Stateful]) -> None:
    """Load a checkpoint into all parts; every name and shape is checked before the first copy.

    Tensors of parts that are not asked for are left alone (sampling needs only G).
    Raises CheckpointError naming the tensor, the expected and the given shape or dtype.
    """
    tensors = checkpoint.read()
    given = {name: tensor for name, tensor in tensors.items() if name.split("/")[0] in parts}
    expected = collect(parts)
    for name in sorted(expected.keys() ^ given.keys()):
        where = "lacks" if name in expected else "has an unexpected"
        raise CheckpointError(
            f"checkpoint {checkpoint.tensor_path} {where} tensor {name}: "
            "it was written by another architecture or optimiser"
        )
    for name, tensor in expected.items():
        if tensor.shape != given[name].shape:
            raise CheckpointError(
                f"checkpoint {checkpoint.tensor_path}, tensor {name}: expected shape "
                f"{tensor.shape}, given {given[name].shape}: it is of another architecture"
            )
        if tensor.dtype != given[name].dtype:
            raise CheckpointError(
                f"checkpoint {checkpoint.tensor_path}, tensor {name}: expected {tensor.dtype}, "
                f"given {given[name].dtype}: it is of a run with another --dtype"
            )
        network = isinstance(parts[name.split("/")[0]], Network)
        if network and not np.isfinite(given[name]).all():
            raise CheckpointError(
                f"checkpoint {checkpoint.tensor_path}, tensor {name}: not all numbers are finite; "
                + _advice(list_checkpoints(checkpoint.folder), checkpoint)
            )
    for part, stateful in parts.items():
        prefix = part + "/"
        own = {n.removeprefix(prefix): t for n, t in given.items() if n.startswith(prefix)}
        stateful.load(own)


def newest_checkpoint(folder: Path, step: int | None = None) -> Checkpoint:
    """The newest checkpoint (or the one of `step`), verified.

    Raises CheckpointError when there is none; when it is damaged, the error names the newest good
    one before it, and how to go on from there: going back is the user's decision.
    """
    every = list_checkpoints(folder)
    if not every:
        raise CheckpointError(f"no checkpoint in {folder}: there is nothing to go on from")
    chosen = next((c for c in every if c.step == step), None) if step is not None else every[-1]
    if chosen is None:
        steps = ", ".join(str(c.step) for c in every)
        raise CheckpointError(f"no checkpoint of step {step} in {folder}; there are: {steps}")
    try:
        chosen.read()
    except CheckpointError as damage:
        raise CheckpointError(f"{damage}; {_advice(every, chosen)}") from damage
    return chosen


def _advice(every: list[Checkpoint], damaged: Checkpoint) -> str:
    for older in reversed([c for c in every if c.step < damaged.step]):
        try:
            older.read()
        except CheckpointError:
            continue
        return (
            f"the newest good one before it is of step {older.step}: add --checkpoint {older.step}"
        )
    return "no older checkpoint is intact"


def set_aside_later(folder: Path, step: int) -> None:
    """Rename the checkpoints after `step`, from which a run now goes on, out of the way."""
    for later in list_checkpoints(folder):
        if later.step > step:
            set_aside(later.json_path)
            set_aside(later.tensor_path)


def prune(folder: Path, keep_last: int, keep_every: int | None) -> None:
    """Keep the last `keep_last` checkpoints and every one whose step divides by `keep_every`."""
    for old in list_checkpoints(folder)[:-keep_last]:
        if keep_every is None or old.step == 0 or old.step % keep_every:
            old.json_path.unlink(missing_ok=True)  # first the JSON: without it there is none
            old.tensor_path.unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Remove what a killed process left: temporary files, and tensors that have no JSON."""
    remove_leftovers(folder)
    whole = {checkpoint.tensor_path for checkpoint in list_checkpoints(folder)}
    for path in folder.glob("step_*.safetensors"):
        if path not in whole:
            path.unlink()
