"""Mode coverage and sample quality, as PacGAN counts them. See docs/mode-collapse.md.

Srivastava et al. 2017 (VEEGAN), Lin et al. 2018 (PacGAN): for data drawn from a known mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygan.data.points import Mixture
from tinygan.errors import DataError, OptionError, ShapeError

SAMPLES = 2500  # of G, as PacGAN takes them
SIGMAS = 3.0
BATCH = 1000  # samples whose distances to all modes are held at a time


@dataclass(frozen=True)
class ModeScore:
    """What share of the samples is good, and over which modes the good ones are spread.

    `counts` (K,): good samples by mode. `reverse_kl`: of their shares to the uniform, in nats;
    None where no sample is good.
    """

    counts: tuple[int, ...]
    samples: int

    @property
    def covered(self) -> int:
        """Modes with at least one good sample: [modes.1]."""
        return sum(count > 0 for count in self.counts)

    @property
    def quality(self) -> float:
        """The share of good samples: [modes.2]."""
        return sum(self.counts) / self.samples

    @property
    def reverse_kl(self) -> float | None:
        """Σ q log(q K) over the shares q of the K modes among the good samples: [modes.3]."""
        good = sum(self.counts)
        if good == 0:
            return None
        shares = [count / good for count in self.counts if count]
        return math.fsum(q * math.log(q * len(self.counts)) for q in shares)

    def __str__(self) -> str:
        of = len(self.counts)
        return f"{self.covered} of {of} modes, {100 * self.quality:.1f} % good samples"


def mode_coverage(samples: ArrayLike, mixture: Mixture, sigmas: float = SIGMAS) -> ModeScore:
    """Count the good samples of every mode.

    A sample (of `samples`, (N, D)) belongs to the mode that is nearest, and is good if it lies
    less than `sigmas` standard deviations from its centre.
    Raises ShapeError, DataError (NaN, infinity, no numbers), OptionError (sigmas).
    """
    x, means = _points(samples, mixture), mixture.means
    if not (sigmas > 0.0 and math.isfinite(sigmas)):
        raise OptionError(f"modes: sigmas must be positive and finite, got {sigmas:g}")
    counts = np.zeros(len(means), np.int64)
    for start in range(0, len(x), BATCH):
        # plain differences: |x|² - 2 x·m + |m|² would lose what the modes are narrower than
        offsets = x[start : start + BATCH, None, :] - means
        distances = np.sqrt(np.einsum("nkd,nkd->nk", offsets, offsets))
        nearest = distances.argmin(axis=1)
        good = distances.min(axis=1) < sigmas * mixture.std
        counts += np.bincount(nearest[good], minlength=len(means))
    return ModeScore(tuple(int(count) for count in counts), len(x))


def perfect_quality(sigmas: float = SIGMAS) -> float:
    """The share of good samples of a perfect G in the plane, modes far apart: [modes.2]."""
    return 1.0 - math.exp(-0.5 * sigmas**2)


def _points(samples: Any, mixture: Mixture) -> NDArray[np.float64]:
    try:
        x = np.asarray(samples, np.float64)
    except (TypeError, ValueError) as why:
        raise DataError(f"modes: samples must be an array of real numbers: {why}") from None
    dimensions = mixture.means.shape[1]
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != dimensions:
        raise ShapeError(f"modes: samples must be (N, {dimensions}), N at least 1, got {x.shape}")
    if bad := int(x.size - np.count_nonzero(np.isfinite(x))):
        raise DataError(f"modes: samples have {bad} values that are NaN or infinite")
    return x
