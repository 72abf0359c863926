"""A run folder as training leaves one, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygan import Network, Noise, get_backend
from tinygan.data.worlds import WORLDS, load_world
from tinygan.presets import get_preset
from tinygan.run.atomic import write_json
from tinygan.run.checkpoint import save_checkpoint
from tinygan.run.folder import FORMAT
from tinygan.run.manifest import describe_data
from tinygan.run.options import overridden


def fresh_run(run: Path, preset: str, data: str, seed: int = 0, **options: Any) -> Path:
    """The folder of a run whose one checkpoint, step 7, has a G as it was at the start."""
    recipe, backend = overridden(get_preset(preset), options), get_backend("numpy")
    body = recipe.generator(None, recipe.labels)
    G = Network(body, (recipe.latent,), backend, "G", Noise(seed, backend))
    (run / "checkpoints").mkdir(parents=True)
    session = {"first_step": 1, "last_step": 7, "seconds": 60.0 * (seed + 1)}
    manifest = {
        "format": FORMAT,
        "preset": preset,
        "options": {"data": data, "dtype": "float32", **options},
        "data": describe_data(load_world(data)) if data in WORLDS else {"name": data},
        "seed": seed,
        "sessions": [session],
    }
    write_json(run / "run.json", manifest)
    save_checkpoint(run / "checkpoints", 7, {"G": G}, {})
    return run
