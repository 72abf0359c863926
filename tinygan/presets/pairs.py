"""Objective, penalty and constraint that papers use together, by the name of the whole."""

from __future__ import annotations

from typing import Any

PAIRS: dict[str, dict[str, Any]] = {
    # Arjovsky et al. 2017, Algorithm 1
    "wgan-clip": {"objective": "wgan", "clip": 0.01, "k": 5},
    # Gulrajani et al. 2017, Algorithm 1
    "wgan-gp": {"objective": "wgan", "penalty": "gp", "penalty_weight": 10.0, "k": 5},
    # Petzka et al. 2018, section 5
    "wgan-lp": {"objective": "wgan", "penalty": "gp-one-sided", "penalty_weight": 10.0, "k": 5},
    # Mescheder et al. 2018, section 4.1
    "gan-r1": {"objective": "non-saturating", "penalty": "r1", "penalty_weight": 10.0},
    "gan-r2": {"objective": "non-saturating", "penalty": "r2", "penalty_weight": 10.0},
}
