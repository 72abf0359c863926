"""The recipes, by name."""

from __future__ import annotations

import difflib

from tinygan.errors import OptionError
from tinygan.presets.dcgan import DCGAN_POOL, DCGAN_RADFORD, DCGAN_RADFORD_32, DCGAN_TF
from tinygan.presets.mlp import GOODFELLOW2014, MLP_BATCHNORM, MLP_LEAKY, MLP_LEAKY_BN
from tinygan.presets.pairs import PAIRS
from tinygan.presets.plane import RING_BEST, RING_PUBLISHED
from tinygan.presets.preset import Labels, Preset
from tinygan.presets.sine import SINE_CURVE, SINE_FAMILY

__all__ = [
    "DCGANS",
    "EXAMPLES",
    "MLPS",
    "PAIRS",
    "PLANES",
    "PRESETS",
    "SINES",
    "Labels",
    "Preset",
    "get_preset",
]

MLPS = {p.name: p for p in (MLP_LEAKY, MLP_LEAKY_BN, MLP_BATCHNORM, GOODFELLOW2014)}
DCGANS = {p.name: p for p in (DCGAN_TF, DCGAN_RADFORD, DCGAN_RADFORD_32, DCGAN_POOL)}
PLANES = {p.name: p for p in (RING_PUBLISHED, RING_BEST)}
SINES = {p.name: p for p in (SINE_CURVE, SINE_FAMILY)}
PRESETS: dict[str, Preset] = {**MLPS, **DCGANS, **PLANES, **SINES}
EXAMPLES = {  # the program that trains each of them
    **dict.fromkeys(MLPS, "train_mlp_gan.py"),
    **dict.fromkeys(DCGANS, "train_dcgan.py"),
    **dict.fromkeys(PLANES, "train_2d.py"),
    **dict.fromkeys(SINES, "train_sine_gan.py"),
}


def get_preset(name: str) -> Preset:
    """The preset called `name`; OptionError, with the nearest name, if there is none."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise OptionError(f"unknown preset {name!r}{hint}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
