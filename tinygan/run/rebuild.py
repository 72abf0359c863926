"""A trained generator, made again from its run folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygan.backend import get_backend
from tinygan.errors import OptionError
from tinygan.nn import Network
from tinygan.noise import Noise
from tinygan.presets import Preset, get_preset
from tinygan.run.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, newest_checkpoint
from tinygan.run.folder import Manifest, RunFolder
from tinygan.run.options import overridden

BATCH = 500  # images generated at a time


def load_run(folder: Path, step: int | None = None) -> tuple[Manifest, Checkpoint]:
    """The run.json of a run and its newest checkpoint (or the one of `step`), verified.

    Raises OptionError when `folder` holds no run, CheckpointError when there is no such checkpoint
    or it is damaged (the message then names the newest good one).
    """
    place = RunFolder(folder)
    manifest = place.read_manifest()
    return manifest, newest_checkpoint(place.checkpoints, step)


@dataclass(frozen=True)
class Generator:
    """G of one checkpoint, or of the mean over several; `batches` and `samples` let it draw."""

    G: Network
    preset: Preset
    manifest: Manifest
    step: int
    averaged: tuple[int, ...] = ()  # the steps whose weights G is the mean of

    def describe(self) -> str:
        """Which weights G has, in words."""
        steps = self.averaged
        if len(steps) > 1:
            return f"the mean of {len(steps)} checkpoints, {steps[0]} to {steps[-1]}"
        return f"checkpoint {self.step}"

    def samples(self, n: int, seed: int = 0) -> np.ndarray:
        """`n` images, float32 (n, H, W, C) in the data's range: a function of (checkpoint, seed).

        BatchNorm uses its running statistics, so that no image depends on its neighbours; the
        first images are the same for every `n`.
        """
        images = np.empty((n, *self.G.output_shape), np.float32)
        start = 0
        for batch in self.batches(n, seed):
            images[start : start + len(batch)] = batch
            start += len(batch)
        return images

    def batches(self, n: int, seed: int = 0) -> Iterator[np.ndarray]:
        """The same images, at most BATCH at a time."""
        cache = self.G.cache("sample", train=False)
        noise = Noise(seed, self.G.backend)
        for number, start in enumerate(range(0, n, BATCH)):
            z = self.preset.draw_latent(noise.at(step=number), "sample", min(BATCH, n - start))
            yield self.G.backend.to_host(self.G.forward(z, cache))


def load_generator(
    folder: Path,
    step: int | None = None,
    backend: str = "auto",
    average_from: int | None = None,
) -> Generator:
    """G as the newest checkpoint of the run in `folder` (or the one of `step`) has it.

    With `average_from` its weights are the mean over every kept checkpoint from that step on
    (Polyak & Juditsky 1992): the players circle around their equilibrium, and the middle of a
    circle is nearer to it than any point of the circle.
    Raises OptionError or CheckpointError, as `load_run`; also when the preset is not known here.
    """
    manifest, checkpoint = load_run(folder, step)
    options = manifest["options"]
    preset = overridden(get_preset(str(manifest.get("preset"))), options)
    place = get_backend(backend, options.get("dtype", "float32"))
    G = Network(preset.generator(None), (preset.latent,), place, "G")
    load_checkpoint(checkpoint, {"G": G})
    if average_from is None:
        return Generator(G, preset, manifest, checkpoint.step)
    every = list_checkpoints(RunFolder(folder).checkpoints)
    chosen = [c for c in every if average_from <= c.step <= checkpoint.step]
    if not chosen:
        raise OptionError(
            f"{folder}: there is no checkpoint from step {average_from} on to average"
        )
    _load_mean(G, chosen)
    return Generator(G, preset, manifest, checkpoint.step, tuple(c.step for c in chosen))


def _load_mean(G: Network, chosen: list[Checkpoint]) -> None:
    """Give G the mean of its weights (and running statistics) over `chosen`, summed in float64."""
    total: dict[str, np.ndarray] = {}
    for checkpoint in chosen:
        load_checkpoint(checkpoint, {"G": G})
        for name, tensor in G.state().items():
            total[name] = total.get(name, 0.0) + tensor.astype(np.float64)
    G.load({name: tensor / len(chosen) for name, tensor in total.items()})
