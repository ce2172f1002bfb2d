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
from penstock_router.scheduler.sequence import Sequence as Waiting


@dataclass(frozen=True, slots=True)
class Prompts:
    """Those of the running sequences that have some left to plan."""

    shorter: Sequence[RunningSequence]  # than the first; the one with least left first
    rest: Sequence[RunningSequence]  # in the queue's order; the first in front
    rest_left: int  # tokens

    @classmethod
    def of(cls, prefilling: Sequence[RunningSequence]) -> Prompts:
        """prefilling: in the queue's order."""
        shorter = [one for one in prefilling if _passes(one.left, one.sequence, prefilling)]
        rest = [one for one in prefilling if one not in shorter] if shorter else prefilling
        return cls(sorted(shorter, key=_left), rest, sum(map(_left, rest)))

    def plan_shorter(self, plan: StepPlan, budget: int) -> None:
        """Chunks of those that pass the first."""
        room = self.passing_room(plan, budget)
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

    def room(self, plan: StepPlan, budget: int, sequence: Waiting) -> int:
        """Tokens that a sequence may compute which begins now."""
        if _passes(sequence.to_compute, sequence, self.rest):
            return self.passing_room(plan, budget)
        return budget - plan.prefill_tokens - min(self.rest_left, budget)

    def passing_room(self, plan: StepPlan, budget: int) -> int:
        """Tokens for those who pass the first: what the others cannot use, and half at least."""
        kept = min(self.rest_left, budget - budget // 2)
        return budget - plan.prefill_tokens - kept


def _passes(left: int, sequence: Waiting, prompts: Sequence[RunningSequence]) -> bool:
    """Whether one with so many tokens left passes the first of these: of no lower priority."""
    if not prompts:
        return False
    first = prompts[0]
    lower = sequence.request.priority < first.sequence.request.priority
    return left < first.left and not lower


def _left(running: RunningSequence) -> int:
    return running.left
