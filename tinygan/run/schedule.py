"""How long a run is, and what it does how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Counted in steps, of which the first is 1. What is due often is due at the last step, too.

    samples_per_step  real samples that D sees in a step
    keep_last         newest checkpoints that stay, besides those of every `keep_every`-th step
    """

    total_steps: int
    steps_per_epoch: int
    samples_per_step: int
    sample_every: int
    checkpoint_every: int
    log_every: int
    keep_last: int = 3
    keep_every: int | None = None

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to, 1-based."""
        return (step - 1) // self.steps_per_epoch + 1

    def logs(self, step: int) -> bool:
        """Whether a run of any length logs here."""
        return step == 1 or step % self.log_every == 0

    def samples(self, step: int) -> bool:
        return step % self.sample_every == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 or step == self.total_steps
