"""Who begins: which of the waiting sequences join the batch in a step."""

from __future__ import annotations

from typing import TypeAlias

from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.prefix_cache import Node
from penstock_router.scheduler.prompts import Prompts
from penstock_router.scheduler.queue import Queue
from penstock_router.scheduler.running_batch import RunningBatch
from penstock_router.scheduler.sequence import RunningSequence, Sequence, State
from penstock_router.scheduler.step_limits import StepLimits

MOST_PASSED = 8  # longer ones a step, which go back into the queue

Computing: TypeAlias = dict[tuple[int, bytes], Sequence]  # node above a block, its tokens: by whom


class AdmissionPolicy:
    """Moves sequences from the queue to the batch while there are slots, blocks and budget."""

    def __init__(
        self,
        config: SchedulerConfig,
        blocks: BlockManager,
        queue: Queue,
        batch: RunningBatch,
        limits: StepLimits,
    ) -> None:
        self._config = config
        self._blocks = blocks
        self._queue = queue
        self._batch = batch
        self._limits = limits
        self._steps_since = 0  # the last one was admitted

    def pass_steps(self, steps: int) -> None:
        """So many more steps are planned."""
        self._steps_since += steps

    def admit(self, plan: StepPlan, now: float, budget: int, prompts: Prompts) -> None:
        """Admit those who may begin; the step then computes up to `budget` prompt tokens, what is
        left of `prompts` included.

        Before it is the queue's turn, only what makes a step little longer.
        """
        if not self._queue or self._full:
            return
        turn = self._is_turn_of_queue()
        if not turn and not prompts.fill(budget):
            budget = min(budget, self._config.cheap_rows - len(plan.decode) - plan.run_tokens)
        passed: list[tuple[Sequence, int]] = []
        unserved = self._admit_in_order(plan, now, budget, prompts, passed)
        for sequence, to_compute in passed:
            self._queue.push(sequence, to_compute)
        if turn and (unserved or passed):
            # The queue's turn is not over: what did not fit goes on in the next step.
            self._steps_since = self._config.max_waiting_tokens

    @property
    def _full(self) -> bool:
        withheld = self._config.max_batch_size - self._limits.sequences
        return self._batch.free_slots <= withheld

    def _is_turn_of_queue(self) -> bool:
        enough = len(self._queue) >= self._config.waiting_served_ratio * len(self._batch)
        return enough or self._steps_since >= self._config.max_waiting_tokens

    def _admit_in_order(
        self,
        plan: StepPlan,
        now: float,
        budget: int,
        prompts: Prompts,
        passed: list[tuple[Sequence, int]],
    ) -> bool:
        """Whether it was the step's length, or the command's, that kept the next one waiting.

        Those that others pass are taken out into `passed`, with the tokens that will be left of
        them: who waits for a prefix, and who is longer than a prompt that fills the step.
        """
        computing, admitted = self._blocks_being_computed(), 0
        for _ in range(self._config.max_batch_size):
            if self._full:
                return False
            sequence = self._queue.first
            if sequence is None:
                return False
            if plan.chunked + len(prompts.rest) >= self._config.max_chunks:
                return True
            if plan.admit and admitted + sequence.length > self._config.max_admitted_tokens:
                return True
            room = prompts.room(plan, budget, sequence)
            if room <= 0:
                if len(passed) < MOST_PASSED and prompts.passing_room(plan, budget) > 0:
                    passed.append((self._queue.pop(), sequence.to_compute))
                    continue
                return True
            prefix = self._blocks.find_prefix(sequence)
            if other := self._who_computes(sequence, prefix, computing):
                passed.append((self._queue.pop(), self._blocks.to_compute_behind(sequence, other)))
                continue
            if not self._blocks.can_admit(sequence, prefix, spare=len(self._batch)):
                return False
            running = self._admit_one(self._queue.pop(), prefix, now)
            plan.admit.append(running)
            admitted += sequence.length
            plan.add_chunk(running, room)
            if key := self._blocks.next_key(running):
                computing[id(running.node), key] = sequence
        return False

    def _blocks_being_computed(self) -> Computing:
        """The next block of all whose prompt is not computed yet, as a place in the tree."""
        return {
            (id(running.node), key): running.sequence
            for running in self._batch
            if running.computed < running.target and (key := self._blocks.next_key(running))
        }

    def _who_computes(
        self, sequence: Sequence, prefix: Node, computing: Computing
    ) -> Sequence | None:
        """Another sequence that is about to publish the block that this one needs next.

        Then it is worth waiting: a burst of equal prefixes computes them once.
        """
        if not computing or (prefix.depth + 1) * self._config.block_size > sequence.reusable:
            return None
        return computing.get((id(prefix), self._blocks.key_after(sequence, prefix)))

    def _admit_one(self, sequence: Sequence, prefix: Node, now: float) -> RunningSequence:
        running = self._blocks.admit(sequence, prefix, self._batch.pop_slot())
        sequence.state = State.RUNNING
        if sequence.admitted_at is None:
            sequence.admitted_at = now
            sequence.cached_tokens = min(running.cached, len(sequence.request.prompt))
        self._batch.add(running)
        self._steps_since = 0
        return running
