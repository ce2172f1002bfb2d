"""Prompts that are partly computed, and who passes whom.

In the queue's order alone, a short prompt behind a long one waits until all of that is computed. So
those with less left than the first may have up to half of a step before it, those that wait for
their turn among them: shortest remaining processing time (Schrage, 1968), but the first takes at
most twice as long as without them, and of equal prompts none passes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.sequence import RunningSequence


@dataclass(frozen=True, slots=True)
class Prompts:
    """Those of the running sequences that have some left to plan."""

    shorter: Sequence[RunningSequence]  # than the first; the one with least left first
    rest: Sequence[RunningSequence]  # in the queue's order; the first in front
    first_left: int  # tokens
    rest_left: int

    @classmethod
    def of(cls, prefilling: Sequence[RunningSequence]) -> Prompts:
        """prefilling: in the queue's order."""
        if len(prefilling) < 2:
            left = sum(one.left for one in prefilling)
            return cls((), prefilling, left, left)
        first = prefilling[0].left
        shorter = sorted((one for one in prefilling if one.left < first), key=_left)
        rest = [one for one in prefilling if one.left >= first]
        return cls(shorter, rest, first, sum(map(_left, rest)))

    def plan_shorter(self, plan: StepPlan, budget: int) -> None:
        """Chunks of those that pass the first."""
        room = budget - self._kept(budget)
        for running in self.shorter:
            room -= plan.add_chunk(running, room)

    def plan_rest(self, plan: StepPlan, budget: int) -> None:
        """Chunks of the others, of what is left of the step."""
        room = budget - plan.prefill_tokens
        for running in self.rest:
            room -= plan.add_chunk(running, room)

    def fill(self, budget: int) -> bool:
        """Whether a step has so many tokens whoever else comes."""
        return self.rest_left >= budget

    def room(self, plan: StepPlan, budget: int, to_compute: int) -> int:
        """Tokens that a sequence may compute which begins now, with so many to compute."""
        passes = to_compute < self.first_left
        kept = self._kept(budget) if passes else min(self.rest_left, budget)
        return budget - plan.prefill_tokens - kept

    def _kept(self, budget: int) -> int:
        """Tokens of a step that those who pass leave to the others."""
        return min(self.rest_left, budget - budget // 2)


def _left(running: RunningSequence) -> int:
    return running.left
