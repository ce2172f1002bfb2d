"""Decides what the shards compute next.

A step is a mixed batch: every running sequence decodes one token, and the prefill budget goes to
prompt chunks. Plans are made ahead of results: a plan assumes that the sequences in flight go on,
and where a result says otherwise the tokens computed for them since are dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from collections.abc import Sequence as Tokens

from penstock_router.request import GenerationRequest, Listener
from penstock_router.scheduler.admission import AdmissionPolicy
from penstock_router.scheduler.budget import makes_longer_steps, prompt_budget
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.flight import Chunk, Flight, Outcome
from penstock_router.scheduler.forced_runs import ForcedRuns
from penstock_router.scheduler.lifecycle import Lifecycle
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.prompts import Prompts
from penstock_router.scheduler.results import Results
from penstock_router.scheduler.sequence import RunningSequence, Sequence
from penstock_router.scheduler.shares import Shares
from penstock_router.scheduler.step_limits import StepLimits

SECONDS_PER_PRIORITY = 1.0  # waiting that long outweighs one level of priority


class Scheduler:
    """What the engine asks and tells; and the planning of steps."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.step_limits = StepLimits(config.max_batch_prefill_tokens, config.max_batch_size)
        self._lifecycle = Lifecycle(config)
        self.blocks = self._lifecycle.blocks
        self._queue, self._batch = self._lifecycle.queue, self._lifecycle.batch
        self._decode = self._lifecycle.decode
        self._shares = Shares()
        self._admission = AdmissionPolicy(
            config, self.blocks, self._queue, self._batch, self.step_limits
        )
        self._forced_runs = ForcedRuns(config, self.blocks, self.step_limits)
        self._results = Results(config, self._lifecycle, self._forced_runs)
        self._planned_out: list[RunningSequence] = []
        self._ids = itertools.count(1)
        self._step = 1
        self._step_seconds = 0.0

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._batch)

    @property
    def running_tokens(self) -> int:
        """KV tokens of the sequences in the batch."""
        return sum(running.planned for running in self._batch)

    @property
    def preemptions(self) -> int:
        """How often a sequence was preempted so far."""
        return self._lifecycle.preemptions

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do and nothing is in flight."""
        return not self._lifecycle.sequences and not self._results

    def submit(
        self,
        request: GenerationRequest,
        now: float,
        listener: Listener | None = None,
        grammar: int = 0,
        opening: Tokens[int] = (),
    ) -> Sequence:
        """Queue a request. grammar: the shards' number for what it is held to; opening: the tokens
        that this forces at the start.

        Priority is a head start: a level counts as much as SECONDS_PER_PRIORITY of waiting; and
        who asks for much stands a little behind (`Shares`). So the order of two sequences never
        changes while they wait, and nobody starves.
        """
        order = self._shares.start(request.client, now) - request.priority * SECONDS_PER_PRIORITY
        known = self._forced_runs.cut(opening, request.max_new_tokens) if _may_open(request) else []
        sequence = Sequence(next(self._ids), request, listener, now, order, grammar, known)
        self._lifecycle.add(sequence)
        return sequence

    def cancel(self, sequence_id: int) -> Sequence | None:
        """End a sequence now; None if it has ended already."""
        sequence = self._lifecycle.sequences.get(sequence_id)
        if sequence is not None:
            self._lifecycle.end(sequence)
        return sequence

    def finish(self, sequence: Sequence) -> None:
        """End a sequence because its text says so; what is in flight for it will be dropped."""
        self._lifecycle.end(sequence)

    def named(self, name: str | None) -> list[Sequence]:
        """Those that have not ended and have that name, or the name of one of a batch of it
        (`name_0`); all for None."""
        return self._lifecycle.named(name)

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache. False, and nothing is done, unless `idle`."""
        if self.idle:
            self.blocks.forget_all()
        return self.idle

    def end_all(self) -> list[Sequence]:
        """End every sequence, when the shards are gone."""
        sequences = self._lifecycle.named(None)
        for sequence in sequences:
            self._lifecycle.end(sequence)
        self._results.clear()
        return sequences

    def plan(self, now: float) -> StepPlan | None:
        """The next command, or None when there is nothing to compute before more is known."""
        plan = StepPlan(self._step)
        self._give_back_planned_out()
        self._plan_runs(plan)
        preempted = self._plan_decode(plan)
        prefilling = self._batch.prefilling()
        prompts, budget = Prompts.of(prefilling), self._prompt_budget(plan, prefilling)
        prompts.plan_shorter(plan, budget)
        if not preempted or not self._batch:  # the preempted do not return at once
            self._admission.admit(plan, now, budget, prompts)
        prompts.plan_rest(plan, budget)
        if not plan.decode and not plan.chunked:
            return None
        self._grant_steps(plan)
        plan.release = self._batch.pop_released()
        self._decode.stale = False
        self._advance(plan)
        return plan

    def commit(
        self,
        step: int,
        tokens: Tokens[int],
        seconds: float,
        forced: Mapping[int, Tokens[int]] | None = None,
    ) -> list[Outcome]:
        """Take in a step's result: the tokens of its rows, in the order the wire defines, and what
        grammars force behind some of them.

        Raises ValueError when the result is not the next one that is due, or contradicts what was
        forced.
        """
        self._step_seconds = seconds
        return self._results.commit(step, tokens, forced or {})

    def refuse(self, step: int, slot: int, broken: bool) -> Sequence | None:
        """End a sequence that a step's result refuses, before that is committed: what it brings for
        it is dropped, as is what is in flight. None: it has ended already.

        broken: it has NaN, as what was computed for it may have. Raises ValueError where the step
        that is due has no such slot.
        """
        return self._results.refuse(step, slot, broken)

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, blocks and counts add up. For tests."""
        self._lifecycle.check_integrity()

    # -- planning -------------------------------------------------------------------------------

    def _give_back_planned_out(self) -> None:
        """Give back the slots of sequences whose last step is planned, results or not."""
        for running in self._planned_out:
            self._batch.give_back_slot(running)
        self._planned_out.clear()

    def _plan_runs(self, plan: StepPlan) -> None:
        """Those who compute a run do not decode in the step."""
        self._forced_runs.plan(plan, len(self._batch), self._step_seconds)
        if plan.runs:
            self._decode.stale = True

    def _plan_decode(self, plan: StepPlan) -> bool:
        """Plan the decode rows, each with the block that it is about to write; True if some
        sequences were preempted for that."""
        before = self.preemptions
        size = self.config.block_size
        for running in self._decode.members():
            full = running.planned == len(running.blocks) * size
            if full and running.open and self._lifecycle.make_room(running):
                self._grant_block(plan, running)
        self._decode.refresh()
        plan.decode_changed = self._decode.stale
        plan.decode, plan.groups = self._decode.rows, self._decode.groups
        if self.preemptions == before:
            return False
        plan.leave_out({running.slot for running in self._batch})
        return True

    def _prompt_budget(self, plan: StepPlan, prefilling: Tokens[RunningSequence]) -> int:
        """How many prompt tokens the step may take."""
        if makes_longer_steps(self.config, self._queue.to_compute):
            self._queue.recount(self.blocks.to_compute)
        unplanned = self._queue.to_compute + sum(one.left for one in prefilling)
        longest = max((one.target - one.cached for one in prefilling), default=0)
        decoding = len(plan.decode) + len(plan.runs)
        budget = prompt_budget(self.config, decoding, unplanned, longest)
        return min(budget, self.step_limits.prompt_tokens - plan.run_tokens)

    def _grant_steps(self, plan: StepPlan) -> None:
        """Allow several decode steps where there are blocks for all of them.

        At 1 ms a step the wire must not be paid for every step. What arrives meanwhile waits for
        two such commands at most; a sequence that ends unforeseen costs its row of the steps left.
        """
        steps = self._steps_without_change(plan)
        if steps <= 1:
            return
        size = self.config.block_size
        short = [one for one in plan.decode if len(one.blocks) * size < one.planned + steps]
        if len(short) <= self.blocks.available:
            plan.repeat = steps
            for running in short:
                self._grant_block(plan, running)

    def _steps_without_change(self, plan: StepPlan) -> int:
        """Decode steps in which nobody joins and no sequence reaches its length, as far as one
        command may go; 1 unless a step only decodes."""
        if plan.chunked or not self._step_seconds:
            return 1
        if len(self._lifecycle.sequences) != len(self._batch):
            return 1  # somebody waits
        sequences = [running.sequence for running in plan.decode]
        if any(one.generated < one.expect_run_until for one in sequences):
            return 1  # of a run that begins, the steps under way compute the first tokens
        config = self.config
        most = min(
            config.max_repeat,
            config.max_waiting_tokens,
            config.block_size,
            int(config.grant_seconds / self._step_seconds),
        )
        if most <= 1:
            return 1
        return min(most, min(one.unplanned for one in sequences))

    def _grant_block(self, plan: StepPlan, running: RunningSequence) -> None:
        plan.grants.append((running.held_slot, self.blocks.grow(running)))

    def _advance(self, plan: StepPlan) -> None:
        """Count the plan as under way."""
        chunks: list[Chunk] = []
        for running, run in plan.runs:
            running.planned += len(run)
            chunks.append(Chunk(running, running.planned, True, run))
            self._decode.stale = True
            self._expect_tokens(running, len(run))
        for running, length in plan.chunks:
            running.planned += length
            chunks.append(Chunk(running, running.planned, not running.prefilling))
            if not running.prefilling:
                self._batch.prefilled(running)
                self._decode.stale = True
                self._expect_tokens(running, 1)
        for running in plan.decode:
            running.planned += plan.repeat
            self._expect_tokens(running, plan.repeat)
        for offset in range(plan.repeat):
            self._results.expect(Flight(plan.step + offset, plan.decode, chunks))
        self._step += plan.repeat
        self._admission.pass_steps(plan.repeat)
        self.step_limits.pass_steps(plan.repeat)

    def _expect_tokens(self, running: RunningSequence, count: int) -> None:
        sequence = running.sequence
        sequence.in_flight += count
        if sequence.unplanned <= 0:
            self._planned_out.append(running)
            self._decode.stale = True


def _may_open(request: GenerationRequest) -> bool:
    """Whether tokens may be appended that no step chooses: nothing is wanted to be known of the
    choice, and nothing but the grammar decides it."""
    sampling = request.sampling
    asked = sampling.logprobs or sampling.top_n or sampling.given or request.prompt_logprobs
    return not asked and sampling.rules is None
