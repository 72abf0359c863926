"""The recipes, by name."""

from __future__ import annotations

import difflib

from tinygan.errors import OptionError
from tinygan.presets.dcgan import DCGAN_POOL, DCGAN_RADFORD, DCGAN_RADFORD_32, DCGAN_TF
from tinygan.presets.mlp import GOODFELLOW2014, MLP_BATCHNORM, MLP_LEAKY, MLP_LEAKY_BN
from tinygan.presets.preset import Labels, Preset

__all__ = ["DCGANS", "MLPS", "PRESETS", "Labels", "Preset", "get_preset"]

MLPS = {p.name: p for p in (MLP_LEAKY, MLP_LEAKY_BN, MLP_BATCHNORM, GOODFELLOW2014)}
DCGANS = {p.name: p for p in (DCGAN_TF, DCGAN_RADFORD, DCGAN_RADFORD_32, DCGAN_POOL)}
PRESETS: dict[str, Preset] = {**MLPS, **DCGANS}


def get_preset(name: str) -> Preset:
    """The preset called `name`; OptionError, with the nearest name, if there is none."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise OptionError(f"unknown preset {name!r}{hint}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
