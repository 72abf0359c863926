"""Losses on D's score itself, which is no logit here: least squares, hinge, Wasserstein.

Each is a pair: D's loss of its scores for real and fake samples (N, 1), and G's of those for fakes,
with their gradients on the scores. Derivation: docs/objectives.md, sections 7 to 9.
"""

from __future__ import annotations

from tinygan.backend import Array
from tinygan.nn.cache import Cache


def mean_square(scores: Array, target: float, cache: Cache) -> tuple[Array, Array]:
    """E (score - target)² and its gradient 2 (score - target) / N: [obj.7]."""
    d = cache.new("d", scores.shape)
    cache.backend.xp.subtract(scores, target, out=d)
    loss = (d * d).mean()
    d *= 2.0 / scores.size
    return loss, d


def mean(scores: Array, sign: float, cache: Cache) -> tuple[Array, Array]:
    """sign · E score and its gradient sign / N."""
    d = cache.new("d", scores.shape)
    d.fill(sign / scores.size)
    return sign * scores.mean(), d


def mean_shortfall(scores: Array, sign: float, cache: Cache) -> tuple[Array, Array]:
    """E max(0, 1 - sign · score): by how much scores miss the margin on their side: [obj.9]."""
    xp, d = cache.backend.xp, cache.new("d", scores.shape)
    short = xp.maximum(1.0 - sign * scores, 0.0)
    d[...] = short > 0
    d *= -sign / scores.size  # beyond the margin nobody is told anything
    return short.mean(), d


def least_squares_discriminator(
    real: Array, fake: Array, cache: Cache, real_target: float, share: float
) -> tuple[Array, Array, Array]:
    """share · (E (D(x) - real_target)² + E D(G(z))²): Mao et al. 2017, eq. 9, a = 0."""
    loss_real, d_real = mean_square(real, real_target, cache["real"])
    loss_fake, d_fake = mean_square(fake, 0.0, cache["fake"])
    return share * (loss_real + loss_fake), share * d_real, share * d_fake


def least_squares_generator(fake: Array, cache: Cache) -> tuple[Array, Array]:
    """E (D(G(z)) - 1)², c = 1: [obj.8]."""
    return mean_square(fake, 1.0, cache["least squares"])


def hinge_discriminator(real: Array, fake: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): Lim & Ye 2017; Miyato et al. 2018, eq. 16."""
    loss_real, d_real = mean_shortfall(real, 1.0, cache["real"])
    loss_fake, d_fake = mean_shortfall(fake, -1.0, cache["fake"])
    return loss_real + loss_fake, d_real, d_fake


def wasserstein_discriminator(real: Array, fake: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """E D(G(z)) - E D(x): Arjovsky et al. 2017, eq. 2, for a D of slope at most 1: [obj.11]."""
    loss_real, d_real = mean(real, -1.0, cache["real"])
    loss_fake, d_fake = mean(fake, 1.0, cache["fake"])
    return loss_real + loss_fake, d_real, d_fake


def score_generator(fake: Array, cache: Cache) -> tuple[Array, Array]:
    """-E D(G(z)), G's loss under hinge [obj.10] and under Wasserstein [obj.12]."""
    return mean(fake, -1.0, cache["score"])
