"""What each player wants: a loss and its gradient on D's logits. Derivation: docs/objectives.md.

D always ends in logits. An objective is two short functions: one for D, one for G. Here stand
the two cross-entropies; least squares, hinge and Wasserstein are in critics.py.
At its optimum D(x) = p/(p + q) [game.2], that is, the logit is log p(x)/q(x) [game.4].
With `probabilities` the same objective is computed through p = sigmoid(logit), as older code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tinygan.backend import Array
from tinygan.errors import OptionError
from tinygan.gan.critics import (
    hinge_discriminator,
    least_squares_discriminator,
    least_squares_generator,
    score_generator,
    wasserstein_discriminator,
)
from tinygan.nn.cache import Cache

PROBABILITY_CLIP = 1e-7  # float32 still tells 1 - 1e-7 from 1, not 1 - 1e-8; as in Keras


def bce_with_logits(
    logits: Array, target: float | Array, cache: Cache, share: float = 1.0
) -> tuple[Array, Array]:
    """share · mean BCE(sigmoid(logits), target) and its gradient on the logits, (N, 1).

    `target` in [0, 1], a number or (N, 1); soft labels are allowed. Stable at |logit| = 1e4.
    """
    d = cache.new("d", logits.shape)
    loss = cache.backend.bce_logits(logits, target, d, share)  # [bce.3], [bce.4]
    return loss, d


def bce_with_probabilities(
    logits: Array, target: float | Array, cache: Cache, share: float = 1.0
) -> tuple[Array, Array]:
    """The same through p = sigmoid(logit), p clipped to [1e-7, 1 - 1e-7].

    The way of tutorials; beyond the clip (|logit| > 16.1) it has no gradient.
    """
    d = cache.new("d", logits.shape)
    loss = cache.backend.bce_probabilities(
        logits, target, PROBABILITY_CLIP, d, share
    )  # [bce.1], [bce.2], then through the sigmoid  [obj.4]
    return loss, d


Loss = Callable[[Array, "float | Array", Cache, float], tuple[Array, Array]]
LOSSES: dict[str, Loss] = {"logits": bce_with_logits, "probabilities": bce_with_probabilities}


class Objective(NamedTuple):
    """D's loss and G's loss, each with its gradient on the logits.

    discriminator(real_logits, fake_logits, cache) -> (loss, d_real, d_fake)
    generator(fake_logits, cache)                  -> (loss, d_fake)
    Losses are 0-d arrays: making Python numbers of them would wait for a GPU.
    flipped: D's logits speak for "fake", where they else speak for "real".
    threshold: D says "real" of a logit above it, where the best D stands if it cannot tell; None
    where D is defined up to a constant only, and halfway between the mean scores of the two
    batches is all that one can take.
    probability: sigmoid(logit) is D(x), the probability of "real".
    """

    discriminator: Callable[[Array, Array, Cache], tuple[Array, Array, Array]]
    generator: Callable[[Array, Cache], tuple[Array, Array]]
    flipped: bool = False
    threshold: float | None = 0.0
    probability: bool = True


OBJECTIVES = ("minimax", "non-saturating", "lsgan", "hinge", "wgan")
CROSS_ENTROPIES = ("minimax", "non-saturating")  # D(x) is a probability there, labels are labels
HALVED = (*CROSS_ENTROPIES, "lsgan")  # whose D's loss may be the mean of its two halves


def make_objective(
    name: str = "non-saturating",
    loss: str = "logits",
    halved: bool = True,
    real_target: float = 1.0,
    flipped: bool = False,
    label_noise: float = 0.0,
) -> Objective:
    """The objective called `name`, one of `OBJECTIVES`; OptionError for what has no meaning.

    loss:         "logits", or "probabilities" for the two cross-entropies
    halved:       D's loss is the mean of its two halves, not their sum (equilibrium log 2, log 4);
                  hinge and wgan know the sum only
    real_target:  D's label for real images; 0.9, say, smooths one-sidedly
    flipped:      labels say "fake": 1 for fakes, 1 - real_target for reals; G aims at 0
    label_noise:  r adds r·U(0, 1) to every one of D's labels, looked up in the cache's noise
    """
    _check_values(name, loss, real_target, label_noise)
    _check_meaning(name, loss, real_target, flipped, label_noise)
    if name == "lsgan":
        return _least_squares(real_target, 0.5 if halved else 1.0)
    if name == "hinge":
        return Objective(hinge_discriminator, score_generator, probability=False)
    if name == "wgan":
        return Objective(
            wasserstein_discriminator, score_generator, threshold=None, probability=False
        )
    return _cross_entropy(name, LOSSES[loss], halved, real_target, flipped, label_noise)


def _check_values(name: str, loss: str, real_target: float, label_noise: float) -> None:
    if name not in OBJECTIVES:
        known = ", ".join(OBJECTIVES[:-1])
        raise OptionError(f"unknown objective {name!r}: choose {known} or {OBJECTIVES[-1]}")
    if loss not in LOSSES:
        raise OptionError(f"unknown loss {loss!r}: choose logits or probabilities")
    if not 0.0 <= real_target <= 1.0:
        raise OptionError(f"a label lies in [0, 1], got {real_target}")
    if not 0.0 <= label_noise < 1.0:
        raise OptionError(f"noise on labels lies in [0, 1), got {label_noise}")


def _check_meaning(
    name: str, loss: str, real_target: float, flipped: bool, label_noise: float
) -> None:
    """Refuse what only a D that answers with a probability, or with labels, can be asked for."""
    if name in CROSS_ENTROPIES:
        return
    if loss == "probabilities":
        raise OptionError(
            f"loss 'probabilities' has no meaning with {name}, whose D gives a score and no "
            "probability: choose logits"
        )
    if flipped or label_noise:
        option = "flipped labels have" if flipped else "noise on labels has"
        raise OptionError(
            f"{option} a meaning with {' and '.join(CROSS_ENTROPIES)} only, not with {name}"
        )
    if name != "lsgan" and real_target != 1.0:
        raise OptionError(
            f"a real target of {real_target} has no meaning with {name}, which has no labels: "
            f"choose {', '.join(CROSS_ENTROPIES)} or lsgan"
        )


def _least_squares(real_target: float, share: float) -> Objective:
    discriminator = partial(least_squares_discriminator, real_target=real_target, share=share)
    middle = 0.5 * real_target  # [monitor.9]
    return Objective(discriminator, least_squares_generator, threshold=middle, probability=False)


def _cross_entropy(
    name: str, bce: Loss, halved: bool, real_target: float, flipped: bool, label_noise: float
) -> Objective:
    """Minimax or non-saturating, from the cross-entropy `bce`."""
    real_label = 1.0 - real_target if flipped else real_target
    fake_label, wanted = (1.0, 0.0) if flipped else (0.0, 1.0)  # G wants "real"  [obj.5]
    share = 0.5 if halved else 1.0

    def judged(logits: Array, label: float, cache: Cache) -> tuple[Array, Array]:
        """D's cross-entropy with one label, which each image may have a little off: [obj.6]."""
        if label_noise == 0.0:
            return bce(logits, label, cache, share)
        purpose, top = f"{cache.path}/labels", label + label_noise
        return bce(logits, cache.noise.uniform(purpose, logits.shape, label, top), cache, share)

    def discriminator(real: Array, fake: Array, cache: Cache) -> tuple[Array, Array, Array]:
        """-E log D(x) - E log(1 - D(G(z))), or half of it: [obj.1]."""
        loss_real, d_real = judged(real, real_label, cache["real"])
        loss_fake, d_fake = judged(fake, fake_label, cache["fake"])
        return loss_real + loss_fake, d_real, d_fake

    def minimax(fake: Array, cache: Cache) -> tuple[Array, Array]:
        """E log(1 - D(G(z))): G descends what D ascends: [obj.2]. Saturates where D(G(z)) -> 0."""
        return bce(fake, fake_label, cache["saturating"], -1.0)

    def non_saturating(fake: Array, cache: Cache) -> tuple[Array, Array]:
        """-E log D(G(z)): the same fixed point, a strong gradient early: [obj.3]."""
        return bce(fake, wanted, cache["non-saturating"], 1.0)

    generator = minimax if name == "minimax" else non_saturating
    raised = -label_noise if flipped else label_noise  # by r/2 each: of "fake", or of "real"
    return Objective(discriminator, generator, flipped, threshold=_undecided(real_target + raised))


def _undecided(t: float) -> float:
    """The logit of the best D where it cannot tell, and answers t/2: [monitor.9]."""
    return math.log(t) - math.log(2.0 - t) if t > 0.0 else -math.inf
