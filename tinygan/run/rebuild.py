"""A trained player, made again from its run folder; and what G draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygan.backend import get_backend
from tinygan.errors import OptionError
from tinygan.nn import Network
from tinygan.nn.layer import Shape
from tinygan.noise import Noise
from tinygan.presets import Preset, get_preset
from tinygan.run.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, newest_checkpoint
from tinygan.run.folder import Manifest, RunFolder
from tinygan.run.options import OF_A_PLAYER, overridden, recorded_options

BATCH = 500  # samples generated at a time


def load_run(folder: Path, step: int | None = None) -> tuple[Manifest, Checkpoint]:
    """The run.json of a run and its newest checkpoint (or the one of `step`), verified.

    Raises OptionError when `folder` holds no run, CheckpointError when there is no such checkpoint
    or it is damaged (the message then names the newest good one).
    """
    place = RunFolder(folder)
    manifest = place.read_manifest()
    return manifest, newest_checkpoint(place.checkpoints, step)


@dataclass(frozen=True)
class Player:
    """G or D with its weights, and where they are from."""

    network: Network
    preset: Preset
    manifest: Manifest
    steps: tuple[int, ...]  # of the checkpoint, or of those that the weights are the mean of

    @property
    def step(self) -> int:
        """The checkpoint, the newest one of several."""
        return self.steps[-1]

    def describe(self) -> str:
        """Which weights it has, in words."""
        if len(self.steps) > 1:
            return f"the mean of {len(self.steps)} checkpoints, {self.steps[0]} to {self.steps[-1]}"
        return f"checkpoint {self.step}"


@dataclass(frozen=True)
class Generator(Player):
    """G, which draws: `batches` and `samples`."""

    refreshed: int = 0  # minibatches that its running statistics have seen since training

    def describe(self) -> str:
        words = super().describe()
        return (
            f"{words}, statistics of {self.refreshed} new minibatches" if self.refreshed else words
        )

    def labels(self, n: int, asked: Sequence[int] | None = None) -> np.ndarray | None:
        """What to ask for: `asked` (none: every class) again and again, int64 (n,).

        None, asked for nothing, of a G without labels. Raises OptionError for labels that G cannot
        take; an empty `asked` is every class, too, but one that must be possible.
        """
        classes = self.preset.labels.classes
        if not classes:
            if asked is not None:
                raise OptionError(
                    "this run has no labels to ask for: its G was trained without --conditional"
                )
            return None
        for label in asked or ():
            if not 0 <= label < classes:
                raise OptionError(f"label {label} is not one of 0 ... {classes - 1}")
        cycle = np.array(asked or range(classes), np.int64)
        return np.resize(cycle, n)

    def samples(self, n: int, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
        """`n` samples, float32 (n, H, W, C) or (n, D), a function of (this G, seed).

        `labels` (n,) are asked of a conditional G, every class in turn where none are given.
        BatchNorm uses its running statistics, so that no sample depends on its neighbours; the
        first ones are the same for every `n`.
        """
        images = np.empty((n, *self.network.output_shape), np.float32)
        start = 0
        for batch in self.batches(n, seed, labels):
            images[start : start + len(batch)] = batch
            start += len(batch)
        return images

    def own_numbers(self, samples: np.ndarray) -> np.ndarray:
        """Samples in the numbers of the user's own file, float64; others are as they are."""
        data = self.manifest["data"]
        scale, shift = data.get("scale", 1.0), np.asarray(data.get("shift", 0.0))
        if scale == 1.0 and not shift.any():
            return samples
        return np.asarray(samples.astype(np.float64) * scale + shift)

    def batches(
        self, n: int, seed: int = 0, labels: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """The same samples, at most BATCH at a time."""
        cache, backend = self.network.cache("sample", train=False), self.network.backend
        noise = Noise(seed, backend)
        labels = self.labels(n) if labels is None else labels
        for number, start in enumerate(range(0, n, BATCH)):
            here = slice(start, min(n, start + BATCH))
            z = self.preset.draw_latent(noise.at(step=number), "sample", here.stop - start)
            if labels is not None:
                cache.condition = backend.from_host(labels[here])
            yield backend.to_host(self.network.forward(z, cache))


def load_generator(
    folder: Path,
    step: int | None = None,
    backend: str = "auto",
    average_from: int | None = None,
    refresh: int = 0,
) -> Generator:
    """G as the newest checkpoint of the run in `folder` (or the one of `step`) has it.

    With `average_from` its weights are the mean over every kept checkpoint from that step on
    (Polyak & Juditsky 1992): the players circle around their equilibrium, and the middle of a
    circle is nearer to it than any point of the circle.
    `refresh` lets BatchNorm's running statistics take in so many new minibatches of this G [bn.9]:
    those of a checkpoint lag behind a G that moves, the mean of several is of no G at all.
    Raises OptionError or CheckpointError, as `load_run`; also when the preset is not known here, or
    there is nothing to refresh.
    """
    G = load_player(folder, "G", step, backend, average_from)
    if refresh:
        _refresh_statistics(G, refresh)
    return Generator(G.network, G.preset, G.manifest, G.steps, refresh)


def _refresh_statistics(player: Player, minibatches: int) -> None:
    """As in training, minibatch by minibatch, but G holds still: [bn.9]. Always the same draws."""
    G, preset = player.network, player.preset
    if not G.statistics.size:
        raise OptionError(
            f"--refresh: the G of {preset.name} has no BatchNorm, so no statistics to refresh"
        )
    noise = Noise(0, G.backend)
    cache = G.cache("refresh", noise=noise)
    for noise.step in range(1, minibatches + 1):
        z = preset.draw_latent(noise, "refresh", preset.samples_per_batch)
        if preset.labels.classes:
            cache.condition = preset.draw_labels(noise, "refresh/labels", len(z))
        G.forward(z, cache)
        G.update_statistics(cache)


def load_player(
    folder: Path,
    player: str,
    step: int | None = None,
    backend: str = "auto",
    average_from: int | None = None,
) -> Player:
    """The `player` called "G" or "D", in the same way."""
    manifest, checkpoint = load_run(folder, step)
    preset = get_preset(str(manifest.get("preset")))
    asked = {name: manifest["options"][name] for name in OF_A_PLAYER if name in manifest["options"]}
    options = recorded_options(folder, asked)
    preset = overridden(preset, options)
    place = get_backend(backend, options.get("dtype", "float32"))
    body = preset.generator(None, preset.labels)
    shape: Shape = (preset.latent,)
    if player == "D":
        shape, body = body.output_shape(shape), preset.make_discriminator()
    network = Network(body, shape, place, player)
    load_checkpoint(checkpoint, {player: network})
    if average_from is None:
        return Player(network, preset, manifest, (checkpoint.step,))
    every = list_checkpoints(RunFolder(folder).checkpoints)
    chosen = [c for c in every if average_from <= c.step <= checkpoint.step]
    if not chosen:
        raise OptionError(
            f"{folder}: there is no checkpoint from step {average_from} on to average"
        )
    _load_mean(network, chosen)
    return Player(network, preset, manifest, tuple(c.step for c in chosen))


def _load_mean(network: Network, chosen: list[Checkpoint]) -> None:
    """Give it the mean of its weights (and running statistics) over `chosen`, summed in float64."""
    total: dict[str, np.ndarray] = {}
    for checkpoint in chosen:
        load_checkpoint(checkpoint, {network.name: network})
        for name, tensor in network.state().items():
            total[name] = total.get(name, 0.0) + tensor.astype(np.float64)
    network.load({name: tensor / len(chosen) for name, tensor in total.items()})
