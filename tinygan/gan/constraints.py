"""Constraints: what is done to D's parameters after its step. See docs/penalties.md, section 8."""

from __future__ import annotations

from tinygan.errors import OptionError
from tinygan.nn.network import Network


def clip_weights(D: Network, c: float) -> None:
    """All of D's parameters into [-c, c]: Arjovsky et al. 2017, algorithm 1 [clip.1]."""
    if not c > 0.0:
        raise OptionError(f"weights are clipped to [-c, c] for a c above 0, got {c}")
    D.backend.xp.clip(D.parameters, -c, c, out=D.parameters)
