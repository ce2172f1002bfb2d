"""The sequences that wait, in the order in which they are admitted."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from penstock_router.scheduler.sequence import Sequence, State

ENDED_IN_QUEUE = 64  # so many, and as many as wait, may lie in the queue until it is swept


class Queue:
    """A heap by order, then by id. Those that end in it are skipped, and swept out in the end."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sequence]] = []
        self._waiting = 0
        self.to_compute = 0  # tokens, by what is expected of those that wait

    def __len__(self) -> int:
        """Sequences that wait."""
        return self._waiting

    def push(self, sequence: Sequence, to_compute: int) -> None:
        """Let a sequence wait, for the first time or again.

        to_compute: tokens of it that the cache is not expected to hold when its turn comes.
        """
        sequence.state = State.WAITING
        sequence.to_compute = to_compute
        self._waiting += 1
        self.to_compute += to_compute
        heapq.heappush(self._heap, (sequence.order, sequence.id, sequence))

    def recount(self, to_compute: Callable[[Sequence], int]) -> None:
        """Count those that wait anew: less where the cache holds more by now. 1.6 us for each."""
        for _, _, sequence in self._heap:
            if sequence.state is State.WAITING:
                less = min(sequence.to_compute, to_compute(sequence))
                self.to_compute -= sequence.to_compute - less
                sequence.to_compute = less

    @property
    def first(self) -> Sequence | None:
        """The sequence whose turn is next; None when nobody waits."""
        while self._heap:
            sequence = self._heap[0][2]
            if sequence.state is State.WAITING:
                return sequence
            heapq.heappop(self._heap)
        return None

    def pop(self) -> Sequence:
        """Take out `first`, which must be there."""
        sequence = heapq.heappop(self._heap)[2]
        self.leave(sequence)
        return sequence

    def leave(self, sequence: Sequence) -> None:
        """Count a sequence no more: it was taken out, or ends here and is skipped."""
        self._waiting -= 1
        self.to_compute -= sequence.to_compute

    def sweep(self) -> None:
        """Let go of those that ended here, lest prompts pile up while no slot is free."""
        if len(self._heap) > ENDED_IN_QUEUE + 2 * self._waiting:
            self._heap = [entry for entry in self._heap if entry[2].state is State.WAITING]
            heapq.heapify(self._heap)

    def check_integrity(self, waiting: list[Sequence]) -> None:
        """Raise AssertionError unless the counts are those of the sequences that wait."""
        assert len(waiting) == self._waiting
        assert sum(sequence.to_compute for sequence in waiting) == self.to_compute
        assert all(0 < sequence.to_compute <= sequence.length for sequence in waiting)
        assert len(self._heap) <= ENDED_IN_QUEUE + 2 * self._waiting, "the queue was not swept"
