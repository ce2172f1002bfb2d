"""What the results of steps in flight mean: tokens, ends, and blocks for the prefix cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Tokens

from penstock_router.request import FinishReason
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.flight import Chunk, Flight, Outcome
from penstock_router.scheduler.forced_runs import ForcedRuns
from penstock_router.scheduler.lifecycle import Lifecycle
from penstock_router.scheduler.sequence import RunningSequence, Sequence, State


class Results:
    """Remembers each planned step until its result is in, and takes results in, in order."""

    def __init__(
        self, config: SchedulerConfig, lifecycle: Lifecycle, forced_runs: ForcedRuns
    ) -> None:
        self._config = config
        self._lifecycle = lifecycle
        self._blocks = lifecycle.blocks
        self._forced_runs = forced_runs
        self._flights: deque[Flight] = deque()

    def __len__(self) -> int:
        """Steps in flight."""
        return len(self._flights)

    def expect(self, flight: Flight) -> None:
        """One more step is in flight."""
        self._flights.append(flight)

    def clear(self) -> None:
        """None of the results will come."""
        self._flights.clear()

    def commit(
        self, step: int, tokens: Tokens[int], forced: Mapping[int, Tokens[int]]
    ) -> list[Outcome]:
        """Take in a step's result; see `Scheduler.commit`."""
        flight = self._pop(step, len(tokens))
        for chunk in flight.chunks:
            self._take_run(chunk)
        self._publish(flight)
        outcomes: list[Outcome] = []
        rows = flight.rows
        for row, (running, run) in enumerate(zip(rows, flight.runs, strict=True)):
            self._take_token(outcomes, row, running.sequence, run, tokens[row])
        for row, behind in forced.items():
            if row >= len(rows):
                raise ValueError(f"result of step {step} forces tokens behind row {row}")
            self._forced_runs.note(rows[row], behind)
        return outcomes

    def refuse(self, step: int, slot: int, broken: bool) -> Sequence | None:
        """End a sequence that a step's result refuses; see `Scheduler.refuse`."""
        batch: list[RunningSequence] = []
        if self._flights and self._flights[0].step == step:
            batch = [running for running in self._flights[0].batch if running.place == slot]
        if not batch:
            raise ValueError(f"result of step {step} refuses slot {slot}, which it does not have")
        sequence = batch[0].sequence
        live = sequence.state is not State.ENDED
        if live:
            self._lifecycle.end(sequence)
        if broken:
            self._blocks.forget(sequence)
        return sequence if live else None

    def _pop(self, step: int, tokens: int) -> Flight:
        """The step that is due. Raises ValueError unless it is this one, with so many tokens."""
        if not self._flights:
            raise ValueError(f"result of step {step}, though none is due")
        flight = self._flights.popleft()
        rows = len(flight.rows)
        if step != flight.step or tokens != rows:
            raise ValueError(
                f"result of step {step} with {tokens} tokens does not fit "
                f"step {flight.step} with {rows} rows, {len(flight.decode)} of them decoding"
            )
        return flight

    def _publish(self, flight: Flight) -> None:
        """What the step has computed may be shared from here on."""
        publish, block_size = self._blocks.publish, self._config.block_size
        for chunk in flight.chunks:
            if chunk.running.open:
                chunk.running.computed = chunk.end
                publish(chunk.running, confirmed=chunk.samples)
        for running in flight.decode:
            if running.open:
                running.computed += 1
                if running.computed % block_size == 0:
                    publish(running, confirmed=True)

    def _take_run(self, chunk: Chunk) -> None:
        """The tokens in front of a chunk's own are known from here on. Raises ValueError where they
        do not go on from the sequence's last."""
        sequence = chunk.running.sequence
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
            self._lifecycle.end(sequence)
            outcomes.append(Outcome(sequence, row, [], FinishReason.LENGTH))
            return
        sequence.extend([token])
        finish = self._finish(sequence, token)
        if finish is not None:
            self._lifecycle.end(sequence)
        elif sequence.state is State.SETTLING:
            self._lifecycle.settle(sequence)
        tokens = [*sequence.pop_opening(), *run, token]
        outcomes.append(Outcome(sequence, row, tokens, finish))

    def _finish(self, sequence: Sequence, token: int) -> FinishReason | None:
        """Why a sequence ends with its newest token; None where it goes on."""
        # The end of a text that a grammar holds is no choice that could be ignored.
        ignored = sequence.request.ignore_eos and not sequence.grammar
        if token in self._config.eos_token_ids and not ignored:
            return FinishReason.EOS
        if sequence.generated == sequence.request.max_new_tokens:
            return FinishReason.LENGTH
        return None
