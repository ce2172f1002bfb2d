"""Runs of tokens that grammars force: known before any step computes them, so they cost no step.

A result names the run behind one of its tokens. What is in flight by then brings the first tokens
of the run anyway; the next plan computes the others as one chunk, which brings them and one more.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.sequence import Seat

LEAST = 2  # tokens of a chunk; one is what a decode row computes


class Runs:
    """Those that the last results named. Each is in the next plan, or in none."""

    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        self._config, self._blocks = config, blocks
        self._found: list[Seat] = []

    def note(self, seat: Seat, tokens: Tokens[int]) -> None:
        """A grammar forces these tokens behind the last known one of a seat's sequence."""
        sequence = seat.sequence
        run = self.cut(tokens, sequence.request.max_new_tokens - sequence.generated)
        if run and seat.open:
            sequence.has_runs = True
            seat.certain = [sequence.last_token, *run]
            seat.certain_from = sequence.length - 1
            self._found.append(seat)

    def cut(self, tokens: Tokens[int], left: int) -> list[int]:
        """As many as a chunk may bring, of a sequence that may have `left` more tokens: none that
        ends it, and not the last, because the chunk chooses one behind them."""
        run: list[int] = []
        if not self._config.forced_runs:
            return run
        for token in tokens[: max(0, left - 1)]:
            if token in self._config.eos_token_ids:
                break
            run.append(token)
        return run

    def plan(self, plan: StepPlan) -> None:
        """Plan chunks for what was found, where there is room without taking anybody's blocks; the
        other sequences decode on."""
        config, blocks = self._config, self._blocks
        room = config.max_batch_prefill_tokens
        for seat in self._found:
            tokens, seat.certain = seat.certain[seat.planned - seat.certain_from :][:room], []
            if not seat.open or len(tokens) < LEAST or len(plan.runs) >= config.most_runs:
                continue
            if seat.planned > config.longest_run_context:
                continue
            missing = blocks.blocks_for(seat.planned + len(tokens)) - len(seat.blocks)
            if missing > blocks.available:
                continue
            plan.grants += [(seat.seated, blocks.grow(seat)) for _ in range(missing)]
            seat.target = seat.planned + len(tokens)
            plan.runs.append((seat, tokens))
            room -= len(tokens)
        self._found.clear()
