"""Decides what the shards compute next.

A step is a mixed batch: every running sequence decodes one token, and the prefill budget goes to
prompt chunks. Plans are made ahead of results: a plan assumes that the sequences in flight go on,
and where a result says otherwise the tokens computed for them since are dropped.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Tokens

from penstock_router.request import FinishReason, GenerationRequest, Listener
from penstock_router.scheduler.admission import AdmissionPolicy
from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.budget import makes_longer_steps, prompt_budget
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.flight import Chunk, Flight, Outcome
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.queue import Queue
from penstock_router.scheduler.room import Room
from penstock_router.scheduler.runs import Runs
from penstock_router.scheduler.seats import Seats
from penstock_router.scheduler.sequence import Seat, Sequence, State
from penstock_router.scheduler.shares import Shares
from penstock_router.scheduler.sharing import group_by_prefix

SECONDS_PER_PRIORITY = 1.0  # waiting that long outweighs one level of priority


class Scheduler:
    """Owns the queue, the seats and the blocks, and moves sequences between them."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.blocks = BlockManager(config.num_blocks, config.block_size, config.prefix_cache)
        self.preemptions = 0
        self._sequences: dict[int, Sequence] = {}  # every one that has not ended
        self._queue = Queue()
        self._shares = Shares()
        self._seats = Seats(config.max_batch_size)
        self.room = Room(config.max_batch_prefill_tokens, config.max_batch_size)
        self._admission = AdmissionPolicy(config, self.blocks, self._queue, self._seats, self.room)
        self._runs = Runs(config, self.blocks, self.room)
        self._decode: list[Seat] = []  # rows of the last planned decode step
        self._groups: list[tuple[int, int]] = []  # of them that share blocks
        self._decode_stale = False
        self._planned_out: list[Seat] = []
        self._flight: deque[Flight] = deque()
        self._ids = itertools.count(1)
        self._step = 1
        self._step_seconds = 0.0

    # -- what the engine asks and tells ------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Sequences that have a seat."""
        return len(self._seats)

    @property
    def running_tokens(self) -> int:
        """KV tokens of the sequences that have a seat."""
        return sum(seat.planned for seat in self._seats)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do and nothing is in flight."""
        return not self._sequences and not self._flight

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
        known = self._runs.cut(opening, request.max_new_tokens) if _may_open(request) else []
        sequence = Sequence(next(self._ids), request, listener, now, order, grammar, known)
        self._sequences[sequence.id] = sequence
        self._wait(sequence)
        return sequence

    def cancel(self, sequence_id: int) -> Sequence | None:
        """End a sequence now; None if it has ended already."""
        sequence = self._sequences.get(sequence_id)
        if sequence is not None:
            self._end(sequence)
        return sequence

    def named(self, name: str | None) -> list[Sequence]:
        """Those that have not ended and have that name, or the name of one of a batch of it
        (`name_0`); all for None."""
        if name is None:
            return list(self._sequences.values())
        own = re.compile(re.escape(name) + r"(_\d+)*")
        return [s for s in self._sequences.values() if own.fullmatch(s.request.name)]

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache. False, and nothing is done, unless `idle`."""
        if self.idle:
            self.blocks.forget_all()
        return self.idle

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
        self._give_back_planned_out()
        self._plan_runs(plan)
        preempted = self._grow_decoders(plan)
        plan.decode_changed = self._decode_stale
        plan.decode, plan.groups = self._decode, self._groups
        budget = self._go_on_with_prompts(plan)
        if not preempted or not self._seats:  # who lost its seat does not get it back at once
            self._admission.admit(plan, now, budget)
        if not plan.decode and not plan.chunked:
            return None
        self._grant_steps(plan)
        plan.release = self._seats.pop_released()
        self._decode_stale = False
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
        if not self._flight:
            raise ValueError(f"result of step {step}, though none is due")
        flight = self._flight.popleft()
        rows = flight.rows
        if step != flight.step or len(tokens) != len(rows):
            raise ValueError(
                f"result of step {step} with {len(tokens)} tokens does not fit "
                f"step {flight.step} with {len(rows)} rows, {len(flight.decode)} of them decoding"
            )
        self._step_seconds = seconds
        for chunk in flight.chunks:
            self._take_run(chunk)
            seat = chunk.seat
            if seat.open:
                seat.computed = chunk.end
                self.blocks.publish(seat, confirmed=chunk.samples)
        for seat in flight.decode:
            if seat.open:
                seat.computed += 1
                if seat.computed % self.config.block_size == 0:
                    self.blocks.publish(seat, confirmed=True)
        outcomes: list[Outcome] = []
        runs: list[Tokens[int]] = [()] * len(flight.decode)
        runs += [chunk.run[1:] for chunk in flight.chunks if chunk.samples]
        for row, (seat, run) in enumerate(zip(rows, runs, strict=True)):
            self._take_token(outcomes, row, seat.sequence, run, tokens[row])
        for row, behind in (forced or {}).items():
            if row >= len(rows):
                raise ValueError(f"result of step {step} forces tokens behind row {row}")
            self._runs.note(rows[row], behind)
        return outcomes

    def refuse(self, step: int, slot: int, broken: bool) -> Sequence | None:
        """End a sequence that a step's result refuses, before that is committed: what it brings for
        it is dropped, as is what is in flight. None: it has ended already.

        broken: it has NaN, as what was computed for it may have. Raises ValueError where the step
        that is due has no such slot.
        """
        seats: list[Seat] = []
        if self._flight and self._flight[0].step == step:
            seats = [seat for seat in self._flight[0].seats if seat.place == slot]
        if not seats:
            raise ValueError(f"result of step {step} refuses slot {slot}, which it does not have")
        sequence = seats[0].sequence
        live = sequence.state is not State.ENDED
        if live:
            self._end(sequence)
        if broken:
            self.blocks.forget(sequence)
        return sequence if live else None

    def finish(self, sequence: Sequence) -> None:
        """End a sequence because its text says so; what is in flight for it will be dropped."""
        self._end(sequence)

    # -- planning -------------------------------------------------------------------------------

    def _plan_runs(self, plan: StepPlan) -> None:
        """Those who compute a run do not decode in the step."""
        self._runs.plan(plan, len(self._seats), self._step_seconds)
        if plan.runs:
            self._decode_stale = True

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
        plan.leave_out({seat.slot for seat in self._seats})
        return True

    def _decoders(self) -> list[Seat]:
        """Rows of the next decode step; the same list as before while nothing joined or left."""
        if not self._decode_stale:
            return self._decode
        return [seat for seat in self._seats if seat.decoding]

    def _make_room(self, seat: Seat) -> bool:
        """Preempt until a block is available; False if `seat` itself had to go."""
        while not self.blocks.available:
            victim = max(
                (s for s in self._seats if s.decoding or s.prefilling),
                key=lambda s: (s.sequence.order, s.sequence.id),
            )
            self._preempt(victim)
            if victim is seat:
                return False
        return True

    def _go_on_with_prompts(self, plan: StepPlan) -> int:
        """Plan more of those partly computed; returns how many prompt tokens the step may take."""
        prefilling = self._seats.prefilling()
        if makes_longer_steps(self.config, self._queue.to_compute):
            self._queue.recount(self.blocks.to_compute)
        unplanned = self._queue.to_compute + sum(seat.target - seat.planned for seat in prefilling)
        longest = max((seat.target - seat.cached for seat in prefilling), default=0)
        decoding = len(plan.decode) + len(plan.runs)
        budget = prompt_budget(self.config, decoding, unplanned, longest)
        room = budget = min(budget, self.room.prompt_tokens - plan.run_tokens)
        for seat in prefilling:
            room -= plan.add_chunk(seat, room)
        return budget

    def _grant_steps(self, plan: StepPlan) -> None:
        """Allow several decode steps while nothing waits and no sequence reaches its length.

        At 1 ms a step the wire must not be paid for every step. What arrives meanwhile waits for
        two such commands at most; a sequence that ends unforeseen costs its row of the steps left.
        """
        if plan.chunked or len(self._sequences) != len(self._seats) or not self._step_seconds:
            return
        if any(seat.sequence.generated < seat.sequence.expect_run_until for seat in plan.decode):
            return  # of a run that begins, the steps under way compute the first tokens
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
        chunks: list[Chunk] = []
        for seat, run in plan.runs:
            seat.planned += len(run)
            chunks.append(Chunk(seat, seat.planned, True, run))
            self._decode_stale = True
            self._expect_tokens(seat, len(run))
        for seat, length in plan.chunks:
            seat.planned += length
            chunks.append(Chunk(seat, seat.planned, not seat.prefilling))
            if not seat.prefilling:
                self._seats.prefilled(seat)
                self._decode_stale = True
                self._expect_tokens(seat, 1)
        for seat in plan.decode:
            seat.planned += plan.repeat
            self._expect_tokens(seat, plan.repeat)
        for offset in range(plan.repeat):
            self._flight.append(Flight(plan.step + offset, plan.decode, chunks))
        self._step += plan.repeat
        self._admission.pass_steps(plan.repeat)
        self.room.pass_steps(plan.repeat)

    def _expect_tokens(self, seat: Seat, count: int) -> None:
        sequence = seat.sequence
        sequence.in_flight += count
        if sequence.unplanned <= 0:
            self._planned_out.append(seat)
            self._decode_stale = True

    def _give_back_planned_out(self) -> None:
        """Give back the slots of sequences whose last step is planned, results or not."""
        for seat in self._planned_out:
            self._seats.give_back_slot(seat)
        self._planned_out.clear()

    # -- movements ------------------------------------------------------------------------------

    def _wait(self, sequence: Sequence) -> None:
        self._queue.push(sequence, self.blocks.to_compute(sequence))

    def _preempt(self, seat: Seat) -> None:
        """Take a seat away; the sequence resumes from what the cache still holds of it."""
        self.preemptions += 1
        self._close(seat)
        if seat.sequence.in_flight:
            seat.sequence.state = State.SETTLING
        else:
            self._wait(seat.sequence)

    def _close(self, seat: Seat) -> None:
        self._seats.vacate(seat)
        self.blocks.release(seat)
        self._decode_stale = True

    def _end(self, sequence: Sequence) -> None:
        if sequence.state is State.WAITING:
            self._queue.leave(sequence)
        if seat := self._seats.of(sequence.id):
            self._close(seat)
        sequence.state = State.ENDED
        del self._sequences[sequence.id]
        self._queue.sweep()

    def _take_run(self, chunk: Chunk) -> None:
        """The tokens in front of a chunk's own are known from here on. Raises ValueError where they
        do not go on from the sequence's last."""
        sequence = chunk.seat.sequence
        if not chunk.run or sequence.state is State.ENDED:
            return
        if chunk.run[0] != sequence.last_token:
            raise ValueError(
                f"token {chunk.run[0]} was forced, but {sequence.last_token} was generated"
            )
        sequence.extend(list(chunk.run[1:]))

    def _take_token(
        self, outcomes: list[Outcome], row: int, sequence: Sequence, run: Tokens[int], token: int
    ) -> None:
        """One more token is known, behind those of a run. A sequence that has ended meanwhile drops
        it."""
        if sequence.state is State.ENDED:
            return
        if not sequence.request.max_new_tokens:
            self._end(sequence)
            outcomes.append(Outcome(sequence, row, [], FinishReason.LENGTH))
            return
        sequence.extend([token])
        finish = None
        ignored = sequence.request.ignore_eos and not sequence.grammar  # whose end is the text's
        if token in self.config.eos_token_ids and not ignored:
            finish = FinishReason.EOS
        elif sequence.generated == sequence.request.max_new_tokens:
            finish = FinishReason.LENGTH
        if finish is not None:
            self._end(sequence)
        elif sequence.state is State.SETTLING and not sequence.in_flight:
            self._wait(sequence)
        tokens = [*sequence.pop_opening(), *run, token]
        outcomes.append(Outcome(sequence, row, tokens, finish))

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, blocks and counts add up. For tests and idle times."""
        seats = list(self._seats)
        self.blocks.check_integrity(seats)
        self._seats.check_integrity()
        sequences = self._sequences.values()
        self._queue.check_integrity([s for s in sequences if s.state is State.WAITING])
        states = [sequence.state for sequence in sequences]
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


def _may_open(request: GenerationRequest) -> bool:
    """Whether tokens may be appended that no step chooses: nothing is wanted to be known of the
    choice, and nothing but the grammar decides it."""
    sampling = request.sampling
    asked = sampling.logprobs or sampling.top_n or sampling.given or request.prompt_logprobs
    return not asked and sampling.rules is None
