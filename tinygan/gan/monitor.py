"""Reads the metrics of a run and says in words what goes wrong. See docs/reading-the-curves.md.

Arithmetic alone: what a monitor says is a function of the rows it was shown, so one that is shown
the rows of a metrics.csv goes on where another stopped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BEFORE = 5  # rows whose median is "now": one odd minibatch is no sign of anything
EARLY = 200  # steps whose losses are the measure of those that come later
LEAST_ROWS = 10  # nothing is said of fewer, however far apart they are
IN_A_ROW = 20  # for a sign that a coin might show, too: 2^-20 is one in a million
YOUNGER = ("penalty", "g_gradient", "spread")  # columns that older runs do not have
RECOVERED = 5  # times its patience without a trace of it: then a sign is said again


class Recent:
    """What the signs are read from: medians of the last rows, and what was reached before."""

    def __init__(self, objective: str, bounded: bool) -> None:
        self.objective, self.bounded = objective, bounded
        self.step = 0
        self.row: Mapping[str, float] = {}
        self.now: dict[str, float] = {}
        self.best: dict[str, float] = {}  # the largest "now" there was
        self.early_size = 0.0
        self._rows: deque[Mapping[str, float]] = deque(maxlen=BEFORE)

    def take(self, step: int, values: Mapping[str, float]) -> None:
        self.step, self.row = step, {**values, "size": self._size(values)}
        self._rows.append(self.row)
        for name in self.row:
            self.now[name] = _median([row.get(name, math.nan) for row in self._rows])  # [monitor.2]
            best = self.best.setdefault(name, -math.inf)
            if self.now[name] > best:
                self.best[name] = self.now[name]
        if step <= EARLY or len(self._rows) < BEFORE:
            self.early_size = self.best.get("size", 0.0)

    def _size(self, values: Mapping[str, float]) -> float:
        """How large losses are; a critic's constant is free, so its size is the gap."""
        if self.objective == "wgan":
            return abs(values["d_real"] - values["d_fake"])
        return max(abs(values["d_loss"]), abs(values["g_loss"]))


def _median(numbers: list[float]) -> float:
    """nan where one of them is, which no sign takes for anything."""
    if any(math.isnan(number) for number in numbers):
        return math.nan
    return sorted(numbers)[len(numbers) // 2]


# ---- the signs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sign:
    """Something that is worth a word when it has been there for `patience` steps."""

    name: str
    patience: int
    shows: Callable[[Recent], bool]
    words: str  # {steps}: for how long; {now[...]}, {best[...]}: the readings
    unbroken: bool = False  # one reading without it, and the count begins anew


def _right(r: Recent, share: float) -> bool:
    return min(r.now["acc_real"], r.now["acc_fake"]) >= share


def d_is_pinned(r: Recent) -> bool:
    """D is right about both batches [monitor.3]. A Wasserstein critic is meant to be."""
    return r.objective != "wgan" and _right(r, 0.99) and not two_opinions(r)


def d_is_idle(r: Recent) -> bool:
    """D rates the fakes of this minibatch no lower than its data: [monitor.4]."""
    return r.row["d_fake"] >= r.row["d_real"]


def g_hears_nothing(r: Recent) -> bool:
    """G's gradient is a hundredth of what it was, and D is sure: [monitor.5]."""
    return r.now["g_gradient"] < 0.01 * r.best["g_gradient"] and _right(r, 0.95)


def fakes_fall_together(r: Recent) -> bool:
    """Fakes were spread out, and are no more: [monitor.6]."""
    best = min(1.0, r.best["spread"])
    return best > 0.4 and r.now["spread"] < best / 3.0


def fakes_stay_together(r: Recent) -> bool:
    """Fakes have been nearly one from the start: [monitor.6]."""
    return r.now["spread"] < 0.2


def sizes_explode(r: Recent) -> bool:
    """Losses, or a critic's scores, leave every scale: [monitor.7]."""
    usual = 0.0 if r.objective == "wgan" and not r.bounded else 20.0 * r.early_size
    return r.now["size"] > max(100.0, usual)


def two_opinions(r: Recent) -> bool:
    """D in G's turn believes the fakes that D in its own turn rejects: [monitor.8]."""
    if r.objective != "non-saturating":
        return False
    rejects = r.now["acc_fake"] >= 0.9
    return rejects and math.exp(-r.now["g_loss"]) > r.now["d_fake"] + 0.1


SIGNS = (
    Sign(
        "strong-d",
        1000,
        d_is_pinned,
        "D has told every batch apart for {steps:,} steps (accuracy {now[acc_real]:.0%} on real, "
        "{now[acc_fake]:.0%} on generated samples): it is too strong for G to learn from it. Give "
        "D a smaller learning rate or fewer updates (k), or try instance noise or the penalty r1",
    ),
    Sign(
        "no-d",
        1500,
        d_is_idle,
        "D has rated generated samples no lower than real ones for {steps:,} steps, without a "
        "break: it does not learn, or far too slowly, and G runs after a fixed opinion. See that D "
        "gets its updates (k of 1 or more, a learning rate, its own optimiser)",
        unbroken=True,
    ),
    Sign(
        "saturated",
        300,
        g_hears_nothing,
        "G's gradient has been under a hundredth of its earlier size for {steps:,} steps while D "
        "is nearly always right: G's loss has saturated and G stands still. Try the non-saturating "
        "objective, or a weaker D",
    ),
    Sign(
        "collapsed",
        1000,
        fakes_fall_together,
        "generated samples are {now[spread]:.2f} times as far apart as real ones and were "
        "{best[spread]:.2f} times before: G has collapsed onto few modes. Give G a smaller "
        "learning rate or D a larger one, or try packing, instance noise or the penalty r1",
    ),
    Sign(
        "alike",
        5000,
        fakes_stay_together,
        "generated samples have been nearly alike for {steps:,} steps ({now[spread]:.2f} times as "
        "far apart as real ones): G makes few modes or only one. Try other learning rates, "
        "BatchNorm in G, packing or instance noise",
    ),
    Sign(
        "exploding",
        200,
        sizes_explode,
        "{what}",
    ),
    Sign(
        "mixed-batch",
        500,
        two_opinions,
        "D rejects generated samples in its own turn (D(G(z)) = {now[d_fake]:.3f}) and believes "
        "them in G's turn, and has for {steps:,} steps: it is not the same function in both. If D "
        "has BatchNorm, show it real and generated samples as two batches, or use LayerNorm",
    ),
)


def _about_sizes(r: Recent) -> str:
    """What explodes, and what to do, differ between a critic and a classifier."""
    size = f"{r.now['size']:,.0f}"
    if r.objective != "wgan":
        return (
            f"losses have reached {size}, more than 20 times what they were in the beginning: "
            "D's logits run away. Try a smaller learning rate, or the penalty r1"
        )
    apart = f"D's mean scores for real and generated samples are {size} apart"
    if r.bounded:
        return f"{apart}: the constraint does not hold. Give it more weight, or smaller steps"
    return f"{apart}: nothing bounds the critic's slope. Add the penalty gp, or clip its weights"


# ---- the monitor -------------------------------------------------------------------------------


class _Watch:
    """For how long one sign has been there."""

    def __init__(self, sign: Sign) -> None:
        self.sign = sign
        self.steps, self.rows, self.quiet = 0, 0, 0
        self.said = False

    def look(self, recent: Recent, passed: int) -> bool:
        """Whether now is the moment to speak of it. `passed`: steps since the last look."""
        if self.sign.shows(recent):
            self.steps, self.rows, self.quiet = self.steps + passed, self.rows + 1, 0
        else:
            lost = self.steps if self.sign.unbroken else 2 * passed  # [monitor.2]
            self.steps = max(0, self.steps - lost)
            self.rows = self.rows if self.steps else 0
            self.quiet += passed
        if self.quiet >= RECOVERED * self.sign.patience:
            self.said = False
        least_rows = IN_A_ROW if self.sign.unbroken else LEAST_ROWS
        if self.said or self.steps < self.sign.patience or self.rows < least_rows:
            return False
        self.said = True
        return True


class Monitor:
    """Watches the metrics of one run for the signs of a game that goes wrong.

    objective   the name of the run's objective: what is alarming depends on it
    bounded     D has a penalty or clipped weights
    said        sign -> the step at which it was said last

    Healthy trainings leave it silent, also where D is far ahead or all samples are alike for the
    first thousand steps; how each sign is told from that stands in docs/reading-the-curves.md.
    """

    def __init__(self, objective: str = "non-saturating", bounded: bool = False) -> None:
        self.said: dict[str, int] = {}
        self._recent = Recent(objective, bounded)
        self._watches = [_Watch(sign) for sign in SIGNS]

    def see(self, step: int, values: Mapping[str, float]) -> list[str]:
        """Take in the metrics of `step` (see `Game.metrics`); what is to be said of them.

        One line for each sign that has been there long enough, and was not said before.
        """
        bad = [f"{name} is {value:g}" for name, value in values.items() if math.isinf(value)]
        bad += [f"{name} is nan" for name, value in values.items() if self._lost(name, value)]
        if bad:
            return self._say("non-finite", step, NON_FINITE.format(what=", ".join(bad)))
        passed = step - self._recent.step
        self._recent.take(step, values)
        found = []
        for watch in self._watches:
            if watch.look(self._recent, passed):
                found += self._say(watch.sign.name, step, self._words(watch))
        return found

    def _lost(self, name: str, value: float) -> bool:
        """Whether a number has become nan, and is not one that an older version did not keep."""
        kept = name not in YOUNGER or math.isfinite(self._recent.now.get(name, math.nan))
        return math.isnan(value) and kept

    def _words(self, watch: _Watch) -> str:
        r = self._recent
        what = _about_sizes(r) if watch.sign.name == "exploding" else ""
        return watch.sign.words.format(steps=watch.steps, now=r.now, best=r.best, what=what)

    def _say(self, name: str, step: int, words: str) -> list[str]:
        if name == "non-finite" and name in self.said:
            return []
        self.said[name] = step
        return [words]


NON_FINITE = (
    "{what}: training has diverged, and nothing comes back from there. Go on from an earlier "
    "checkpoint with a smaller learning rate, or bound D (the penalty gp or r1, clipping)"
)
