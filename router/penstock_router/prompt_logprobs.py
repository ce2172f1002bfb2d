"""Log-probabilities of prompts, which arrive chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_proto.shard_pb2 import StepResult
from penstock_router.scheduler import Sequence, StepPlan
from penstock_router.top_table import TopTable


@dataclass(slots=True)
class PromptScores:
    """Log-probabilities of a prompt, one a token; up to where they begin there are none."""

    logprobs: list[float | None]
    tops: TopTable | None  # most likely tokens of each place; None where none were asked for
    ranks: list[int]  # 1 + the number of tokens that are more likely; 0 for none


class PromptLogprobs:
    """Collects them until a sequence has its first token."""

    def __init__(self) -> None:
        self._collected: dict[int, PromptScores] = {}  # by sequence id
        self._steps: dict[int, dict[int, int]] = {}  # step -> slot -> sequence id

    def expect(self, sequence: Sequence) -> None:
        """Start over with a sequence that was just admitted."""
        count = len(sequence.request.prompt)
        self._collected[sequence.id] = PromptScores([None] * count, None, [0] * count)

    def note(self, plan: StepPlan) -> None:
        """Remember whose chunks a step computes, of those who ask."""
        for running in plan.admit:
            if running.sequence.wants_prompt_logprobs:
                self.expect(running.sequence)
        asking = {
            running.slot: running.sequence.id
            for running, _ in plan.chunks
            if running.slot is not None and running.sequence.id in self._collected
        }
        if asking:
            self._steps[plan.step] = asking

    def take(self, result: StepResult) -> None:
        """Take in what a step brought."""
        asking = self._steps.pop(result.step, {})
        for part in result.prompt:
            if (scores := self._collected.get(asking.get(part.slot, 0))) is not None:
                places = slice(part.start + 1, part.start + 1 + len(part.logprob))
                scores.logprobs[places] = part.logprob
                scores.ranks[places] = part.rank
                if part.top_token:
                    if scores.tops is None:  # the first chunk that asks begins here
                        scores.tops = TopTable(part.start + 1)
                    width = len(part.top_token) // len(part.logprob) // 4
                    scores.tops.extend(part.top_token, part.top_logprob, width)

    def pop(self, sequence: Sequence) -> PromptScores | None:
        """What was collected for a sequence; None if it did not ask."""
        return self._collected.pop(sequence.id, None)
