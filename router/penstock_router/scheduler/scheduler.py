"""Decides what the shards compute next.

A step is a mixed batch: every running sequence decodes one token, and the prefill budget goes to
prompt chunks. Plans are made ahead of results: a plan assumes that the sequences in flight go on,
and where a result says otherwise the tokens computed for them since are dropped.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from penstock_router.request import FinishReason, GenerationRequest, Listener
from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.prefix_cache import Node
from penstock_router.scheduler.sequence import Seat, Sequence, State
from penstock_router.scheduler.sharing import WORTH_TOKENS, group_by_prefix

SECONDS_PER_PRIORITY = 1.0  # waiting that long outweighs one level of priority
ENDED_IN_QUEUE = 64  # so many, and as many as wait, may lie in the queue until it is swept
# A decoding batch shares its steps with prompts. Too few prompt tokens a step and the batch never
# fills; too many and all that decode wait. So a step takes a few for each decoding sequence, and
# more when many wait: what waits is computed within so many steps.
PROMPT_TOKENS_PER_DECODE = 4
STEPS_TO_DRAIN = 32
# Matrix products compute rows in tiles, and tiles in turns of the whole card: of so many rows each
# costs least (8B on an H100, us a layer and row: 0.72 of 384, 0.66 of 768, 0.63 of 1,152 and 2,048;
# 0.74 of 512, 0.70 of 1,024), so a step has as many, or as many as it may.
STEP_ROWS = (384, 768, 1152, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Budgets and sizes. Invariant: one sequence of the largest length fits into the blocks."""

    num_blocks: int  # block 0 included, which is never lent
    block_size: int
    max_batch_size: int  # sequences at once: slots
    max_batch_prefill_tokens: int  # prompt tokens a step
    max_waiting_tokens: int  # decode steps after which the queue is served whatever the ratio says
    waiting_served_ratio: float  # waiting over running sequences from which the queue is served
    eos_token_ids: frozenset[int] = frozenset()
    # Rows of a step up to which prompt tokens are cheap: up to 384 rows each costs 0.6 of what it
    # costs in a full step (8B, H100), because the weights are read anyway. They wait for nobody.
    cheap_rows: int = 384
    prefix_cache: bool = True
    # The shards are told which sequences share blocks where so many reads of a token are saved;
    # None: they are not told.
    shared_reads: int | None = WORTH_TOKENS
    # Prompts travel whole, also what is cached of them: 4 MiB a command, of the 16 or more that the
    # shards take. A longer one is admitted alone.
    max_admitted_tokens: int = 1 << 20
    # No prompt begins in a step of so many chunks: the shards' graphs have room for these, and for
    # more where rows are many (`MOST_CHUNKS` there). 128 times a prompt that is cached but for its
    # last token took a graph of 2,048 rows, 192 times one of 4,096.
    max_chunks: int = 64
    max_repeat: int = 8  # decode steps that one command may grant
    # What a command that grants several steps may take. Two are under way: with 4 ms an arrival
    # among 8 streams of 1.3 ms a step had its first token 2.2 ms later, for 10 us less a token.
    grant_seconds: float = 0.002


@dataclass(slots=True)
class Outcome:
    """What a step's result means for one sequence: a token, and the end if it is the last."""

    sequence: Sequence
    row: int  # of the result
    token: int
    finish: FinishReason | None


class Scheduler:
    """Owns the queue, the slots and the blocks."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.blocks = BlockManager(config.num_blocks, config.block_size, config.prefix_cache)
        self.preemptions = 0
        self._sequences: dict[int, Sequence] = {}  # every one that has not ended
        self._queue: list[tuple[float, int, Sequence]] = []  # a heap; ended ones are skipped
        self._waiting = 0
        self._seats: dict[int, Seat] = {}  # by sequence id
        self._prefilling: dict[int, Seat] = {}  # those with prompt left to plan, by sequence id
        self._decode: list[Seat] = []  # rows of the last planned decode step
        self._groups: list[tuple[int, int]] = []  # of them that share blocks
        self._decode_stale = False
        self._free_slots = list(range(config.max_batch_size - 1, -1, -1))
        self._planned_out: list[Seat] = []
        self._releases: list[int] = []  # slots that the shards do not know to be free yet
        self._flight: deque[tuple[int, list[Seat], list[tuple[Seat, int]]]] = deque()
        self._ids = itertools.count(1)
        self._step = 1
        self._steps_since_admission = 0
        self._step_seconds = 0.0
        self._waiting_tokens = 0  # of the sequences in the queue

    # -- what the engine asks and tells ------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return self._waiting

    @property
    def running(self) -> int:
        """Sequences that have a seat."""
        return len(self._seats)

    @property
    def running_tokens(self) -> int:
        """KV tokens of the sequences that have a seat."""
        return sum(seat.planned for seat in self._seats.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do and nothing is in flight."""
        return not self._sequences and not self._flight

    def submit(
        self, request: GenerationRequest, now: float, listener: Listener | None = None
    ) -> Sequence:
        """Queue a request.

        Priority is a head start: a level counts as much as SECONDS_PER_PRIORITY of waiting. So the
        order of two sequences never changes while they wait, and nobody starves.
        """
        order = now - request.priority * SECONDS_PER_PRIORITY
        sequence = Sequence(next(self._ids), request, listener, now, order)
        self._sequences[sequence.id] = sequence
        self._enqueue(sequence)
        return sequence

    def cancel(self, sequence_id: int) -> Sequence | None:
        """End a sequence now; None if it has ended already."""
        sequence = self._sequences.get(sequence_id)
        if sequence is not None:
            self._end(sequence)
        return sequence

    def end_all(self) -> list[Sequence]:
        """End every sequence, when the shards are gone."""
        sequences = list(self._sequences.values())
        for sequence in sequences:
            self._end(sequence)
        self._flight.clear()
        return sequences

    def plan(self, now: float) -> StepPlan | None:
        """The next command, or None when there is nothing to compute before more is known."""
        plan = StepPlan(self._step)
        self._vacate_planned_out()
        preempted = self._grow_decoders(plan)
        budget = self._prefill_budget()
        self._plan_chunks(plan, budget)
        if not preempted or not self._seats:  # who lost its seat does not get it back at once
            self._admit(plan, now, budget)
        plan.decode_changed, plan.decode = self._decode_stale, self._decode
        plan.groups = self._groups
        if not plan.decode and not plan.chunks:
            return None
        self._grant_steps(plan)
        plan.release, self._releases = self._releases, []
        self._decode_stale = False
        self._advance(plan)
        return plan

    def commit(self, step: int, tokens: Rows[int], seconds: float) -> list[Outcome]:
        """Take in a step's result: the tokens of its rows, in the order the wire defines.

        Raises ValueError when the result is not the next one that is due.
        """
        if not self._flight:
            raise ValueError(f"result of step {step}, though none is due")
        due, decode, chunks = self._flight.popleft()
        sampling = [seat for seat, end in chunks if end >= seat.target]
        if step != due or len(tokens) != len(decode) + len(sampling):
            raise ValueError(
                f"result of step {step} with {len(tokens)} tokens does not fit "
                f"step {due} with {len(decode)} decode and {len(sampling)} prompt rows"
            )
        self._step_seconds = seconds
        for seat, end in chunks:
            if seat.open:
                seat.computed = end
                self.blocks.publish(seat)
        outcomes: list[Outcome] = []
        for row, seat in enumerate(decode):
            if seat.open:
                seat.computed += 1
                if seat.computed % self.config.block_size == 0:
                    self.blocks.publish(seat)
            self._take_token(outcomes, row, seat.sequence, tokens[row])
        for row, seat in enumerate(sampling, start=len(decode)):
            self._take_token(outcomes, row, seat.sequence, tokens[row])
        return outcomes

    def finish(self, sequence: Sequence) -> None:
        """End a sequence because its text says so; what is in flight for it will be dropped."""
        self._end(sequence)

    # -- planning -------------------------------------------------------------------------------

    def _grow_decoders(self, plan: StepPlan) -> bool:
        """Give every decoding seat the block it is about to write; True if some lost their seat."""
        before = self.preemptions
        size = self.config.block_size
        for seat in self._decoders():
            if seat.planned == len(seat.blocks) * size and seat.open and self._make_room(seat):
                self._grant_block(plan, seat)
        if self._decode_stale:
            self._decode, self._groups = self._decoders(), []
            if (worth := self.config.shared_reads) is not None:
                self._decode, self._groups = group_by_prefix(self._decode, size, worth)
        if self.preemptions == before:
            return False
        seated = {seat.slot for seat in self._decode}
        plan.grants = [(slot, block) for slot, block in plan.grants if slot in seated]
        return True

    def _decoders(self) -> list[Seat]:
        """Rows of the next decode step; the same list as before while nothing joined or left."""
        if not self._decode_stale:
            return self._decode
        return [seat for seat in self._seats.values() if seat.decoding]

    def _make_room(self, seat: Seat) -> bool:
        """Preempt until a block is available; False if `seat` itself had to go."""
        while not self.blocks.available:
            victim = max(
                (s for s in self._seats.values() if s.decoding or s.prefilling),
                key=lambda s: (s.sequence.order, s.sequence.id),
            )
            self._preempt(victim)
            if victim is seat:
                return False
        return True

    def _prefill_budget(self) -> int:
        """Prompt tokens that the next step may compute."""
        most, decoding = self.config.max_batch_prefill_tokens, len(self._decode)
        if not decoding:
            return most
        unplanned = sum(seat.target - seat.planned for seat in self._prefilling.values())
        tokens = max(
            PROMPT_TOKENS_PER_DECODE * decoding,
            (unplanned + self._waiting_tokens) // STEPS_TO_DRAIN,
        )
        least = max(tokens + decoding, self.config.cheap_rows)
        rows = next((rows for rows in STEP_ROWS if rows >= least), most + decoding)
        return min(most, rows - decoding)

    def _plan_chunks(self, plan: StepPlan, budget: int) -> None:
        """Go on with the prompts that are partly computed."""
        for seat in sorted(self._prefilling.values(), key=lambda seat: seat.sequence.order):
            self._chunk(plan, seat, budget)

    def _admit(self, plan: StepPlan, now: float, budget: int) -> None:
        """Seat waiting sequences while there are slots, blocks and prefill budget for them.

        Before it is the queue's turn, only what makes a step little longer.
        """
        if not self._waiting:
            return
        turn = self._queue_is_served()
        allowed = budget if turn else min(budget, self.config.cheap_rows - len(self._decode))
        deferred: list[Sequence] = []
        computing = self._blocks_being_computed()
        looked_at, admitted, unserved = 0, 0, False
        while self._free_slots and looked_at < self.config.max_batch_size:
            if plan.prefill_tokens >= allowed or len(plan.chunks) >= self.config.max_chunks:
                unserved = turn
                break
            sequence = self._dequeue()
            if sequence is None:
                break
            looked_at += 1
            if plan.admit and admitted + sequence.length > self.config.max_admitted_tokens:
                deferred.append(sequence)
                unserved = turn
                break
            prefix = self.blocks.find_prefix(sequence)
            if self._is_being_computed(sequence, prefix, computing):
                deferred.append(sequence)
                unserved = turn
                continue
            if not self.blocks.can_seat(sequence, prefix, spare=len(self._seats)):
                deferred.append(sequence)
                break
            admitted += sequence.length
            seat = self._seat(sequence, prefix, now)
            plan.admit.append(seat)
            self._chunk(plan, seat, allowed)
            if key := self.blocks.next_key(seat):
                computing.add((id(seat.node), key))
        for sequence in deferred:
            self._enqueue(sequence)
        if unserved:
            # The queue's turn is not over: what did not fit goes on in the next step.
            self._steps_since_admission = self.config.max_waiting_tokens

    def _queue_is_served(self) -> bool:
        if not self._waiting:
            return False
        enough = self._waiting >= self.config.waiting_served_ratio * len(self._seats)
        return enough or self._steps_since_admission >= self.config.max_waiting_tokens

    def _blocks_being_computed(self) -> set[tuple[int, bytes]]:
        """The next block of every seat whose prompt is not computed yet, as a place in the tree."""
        return {
            (id(seat.node), key)
            for seat in self._seats.values()
            if seat.computed < seat.target and (key := self.blocks.next_key(seat))
        }

    def _is_being_computed(
        self, sequence: Sequence, prefix: Node, computing: set[tuple[int, bytes]]
    ) -> bool:
        """Whether another sequence is about to publish the block that this one needs next.

        Then it is worth waiting: a burst of equal prefixes computes them once.
        """
        if sequence.wants_prompt_logprobs or not computing:
            return False
        if (prefix.depth + 1) * self.config.block_size >= sequence.length:
            return False
        return (id(prefix), self.blocks.key_after(sequence, prefix)) in computing

    def _seat(self, sequence: Sequence, prefix: Node, now: float) -> Seat:
        seat = self.blocks.seat(sequence, prefix, self._free_slots.pop())
        sequence.state = State.RUNNING
        if sequence.admitted_at is None:
            sequence.admitted_at = now
            sequence.cached_tokens = seat.cached
        self._seats[sequence.id] = seat
        self._prefilling[sequence.id] = seat
        self._steps_since_admission = 0
        return seat

    def _chunk(self, plan: StepPlan, seat: Seat, budget: int) -> None:
        length = min(budget - plan.prefill_tokens, seat.target - seat.planned)
        if length > 0:
            plan.chunks.append((seat, length))

    def _grant_steps(self, plan: StepPlan) -> None:
        """Allow several decode steps while nothing waits and no sequence reaches its length.

        At 1 ms a step the wire must not be paid for every step. What arrives meanwhile waits for
        two such commands at most; a sequence that ends unforeseen costs its row of the steps left.
        """
        if plan.chunks or len(self._sequences) != len(self._seats) or not self._step_seconds:
            return
        config = self.config
        steps = min(
            config.max_repeat,
            config.max_waiting_tokens,
            config.block_size,
            int(config.grant_seconds / self._step_seconds),
        )
        if steps <= 1:
            return
        steps = min(steps, min(seat.sequence.unplanned for seat in plan.decode))
        short = [
            seat
            for seat in plan.decode
            if len(seat.blocks) * config.block_size < seat.planned + steps
        ]
        if len(short) <= self.blocks.available:
            plan.repeat = steps
            for seat in short:
                self._grant_block(plan, seat)

    def _grant_block(self, plan: StepPlan, seat: Seat) -> None:
        plan.grants.append((seat.seated, self.blocks.grow(seat)))

    def _advance(self, plan: StepPlan) -> None:
        """Count the plan as under way."""
        chunks: list[tuple[Seat, int]] = []
        for seat, length in plan.chunks:
            seat.planned += length
            chunks.append((seat, seat.planned))
            if not seat.prefilling:
                del self._prefilling[seat.sequence.id]
                self._decode_stale = True
                self._expect_tokens(seat, 1)
        for seat in plan.decode:
            seat.planned += plan.repeat
            self._expect_tokens(seat, plan.repeat)
        for offset in range(plan.repeat):
            self._flight.append((plan.step + offset, plan.decode, chunks))
        self._step += plan.repeat
        self._steps_since_admission += plan.repeat

    def _expect_tokens(self, seat: Seat, count: int) -> None:
        sequence = seat.sequence
        sequence.in_flight += count
        if sequence.unplanned <= 0:
            self._planned_out.append(seat)
            self._decode_stale = True

    def _vacate_planned_out(self) -> None:
        """Give back the slots of sequences whose last step is planned, results or not."""
        for seat in self._planned_out:
            self._release_slot(seat)
        self._planned_out.clear()

    # -- movements ------------------------------------------------------------------------------

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.state = State.WAITING
        self._waiting += 1
        self._waiting_tokens += sequence.length
        heapq.heappush(self._queue, (sequence.order, sequence.id, sequence))

    def _dequeue(self) -> Sequence | None:
        while self._queue:
            sequence = heapq.heappop(self._queue)[2]
            if sequence.state is State.WAITING:
                self._leave_queue(sequence)
                return sequence
        return None

    def _leave_queue(self, sequence: Sequence) -> None:
        self._waiting -= 1
        self._waiting_tokens -= sequence.length

    def _preempt(self, seat: Seat) -> None:
        """Take a seat away; the sequence resumes from what the cache still holds of it."""
        self.preemptions += 1
        self._close(seat)
        if seat.sequence.in_flight:
            seat.sequence.state = State.SETTLING
        else:
            self._enqueue(seat.sequence)

    def _close(self, seat: Seat) -> None:
        seat.open = False
        del self._seats[seat.sequence.id]
        self._prefilling.pop(seat.sequence.id, None)
        self._release_slot(seat)
        self.blocks.release(seat)
        self._decode_stale = True

    def _release_slot(self, seat: Seat) -> None:
        if seat.slot is not None:
            self._releases.append(seat.slot)
            self._free_slots.append(seat.slot)
            seat.slot = None

    def _end(self, sequence: Sequence) -> None:
        if sequence.state is State.WAITING:
            self._leave_queue(sequence)
        if seat := self._seats.get(sequence.id):
            self._close(seat)
        sequence.state = State.ENDED
        del self._sequences[sequence.id]
        if len(self._queue) > ENDED_IN_QUEUE + 2 * self._waiting:
            self._sweep_queue()

    def _sweep_queue(self) -> None:
        """Let go of those that ended in the queue, lest prompts pile up while no slot is free."""
        self._queue = [entry for entry in self._queue if entry[2].state is State.WAITING]
        heapq.heapify(self._queue)

    def _take_token(
        self, outcomes: list[Outcome], row: int, sequence: Sequence, token: int
    ) -> None:
        """One more token is known. A sequence that has ended meanwhile drops it."""
        if sequence.state is State.ENDED:
            return
        sequence.append(token)
        finish = None
        if token in self.config.eos_token_ids and not sequence.request.ignore_eos:
            finish = FinishReason.EOS
        elif sequence.generated == sequence.request.max_new_tokens:
            finish = FinishReason.LENGTH
        if finish is not None:
            self._end(sequence)
        elif sequence.state is State.SETTLING and not sequence.in_flight:
            self._enqueue(sequence)
        outcomes.append(Outcome(sequence, row, token, finish))

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, blocks and counts add up. For tests and idle times."""
        seats = list(self._seats.values())
        self.blocks.check_integrity(seats)
        held = [seat.slot for seat in seats if seat.slot is not None]
        assert sorted(held + self._free_slots) == list(range(self.config.max_batch_size))
        states = [sequence.state for sequence in self._sequences.values()]
        assert states.count(State.WAITING) == self._waiting
        tokens = [s.length for s in self._sequences.values() if s.state is State.WAITING]
        assert sum(tokens) == self._waiting_tokens
        assert len(self._queue) <= ENDED_IN_QUEUE + 2 * self._waiting, "the queue was not swept"
        assert states.count(State.RUNNING) == len(seats)
        assert State.ENDED not in states
        for seat in seats:
            assert (
                seat.cached
                <= seat.computed
                <= seat.planned
                <= len(seat.blocks) * (self.config.block_size)
            )
            assert not seat.private & set(seat.node.path_blocks())
