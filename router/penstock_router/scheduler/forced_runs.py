"""Runs of tokens that grammars force: known before any step computes them, so they cost no step.

A result names the run behind one of its tokens. What is in flight by then brings the first tokens
of the run anyway; the next plan computes the others as one chunk, which brings them and one more.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.sequence import RunningSequence
from penstock_router.scheduler.step_limits import StepLimits

LEAST = 2  # tokens of a chunk; one is what a decode row computes
# A step with chunks takes longer for all who decode in it, and some time of the host: its runs must
# save more than that. Some products have slower kernels beyond so many rows (8B and 1B, H200).
LEAST_SAVED = 2  # steps
HOST_SECONDS = 0.0004
MORE, MUCH_MORE, FEW_ROWS = 0.07, 0.2, 64
NEAR = 16  # tokens behind a run in which another one is likely


class ForcedRuns:
    """Those that the last results named. Each is in the next plan, or in none."""

    def __init__(self, config: SchedulerConfig, blocks: BlockManager, limits: StepLimits) -> None:
        self._config, self._blocks, self._limits = config, blocks, limits
        self._found: list[RunningSequence] = []

    def note(self, running: RunningSequence, tokens: Tokens[int]) -> None:
        """A grammar forces these tokens behind the last known one of a sequence."""
        sequence = running.sequence
        run = self.cut(tokens, sequence.request.max_new_tokens - sequence.generated)
        if run and running.open:
            running.certain = [sequence.last_token, *run]
            running.certain_from = sequence.length - 1
            self._found.append(running)

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

    def plan(self, plan: StepPlan, decoding: int, seconds: float) -> None:
        """Plan chunks for what was found, where that saves enough and there is room without taking
        anybody's blocks; the other sequences decode on. decoding: sequences that would; seconds:
        that a step takes."""
        found = [(running, tokens) for running in self._found if (tokens := self._left(running))]
        self._found.clear()
        saved = sum(len(tokens) - 1 for _, tokens in found)
        longer = MORE if decoding + saved <= FEW_ROWS else MUCH_MORE
        worth = saved * seconds >= decoding * (HOST_SECONDS + longer * seconds)
        if saved < LEAST_SAVED or (seconds and not worth):
            return
        room = self._limits.prompt_tokens
        for running, tokens in found[: self._config.most_runs]:
            tokens = tokens[:room]
            if len(tokens) >= LEAST and self._grant(plan, running, len(tokens)):
                running.target = running.planned + len(tokens)
                running.sequence.expect_run_until = running.sequence.generated + len(tokens) + NEAR
                plan.runs.append((running, tokens))
                room -= len(tokens)

    def _left(self, running: RunningSequence) -> list[int]:
        """What no step in flight computes of a run, with the token in front of it; empty
        where that is not worth a chunk."""
        tokens, running.certain = running.certain[running.planned - running.certain_from :], []
        worth = len(tokens) >= LEAST and running.planned <= self._config.longest_run_context
        return tokens if worth and running.open else []

    def _grant(self, plan: StepPlan, running: RunningSequence, tokens: int) -> bool:
        """Blocks for so many tokens more. False: there are not enough."""
        blocks = self._blocks
        missing = blocks.blocks_for(running.planned + tokens) - len(running.blocks)
        if missing > blocks.available:
            return False
        plan.grants += [(running.held_slot, blocks.grow(running)) for _ in range(missing)]
        return True
