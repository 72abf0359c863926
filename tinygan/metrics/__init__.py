"""Measures of how well samples stand for a distribution."""

from __future__ import annotations

from tinygan.metrics.parzen import (
    SIGMAS,
    ParzenScore,
    choose_sigma,
    parzen,
    parzen_log_likelihood,
)

__all__ = ["SIGMAS", "ParzenScore", "choose_sigma", "parzen", "parzen_log_likelihood"]
