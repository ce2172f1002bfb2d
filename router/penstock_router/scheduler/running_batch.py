"""Which sequences run, and in which slots of the shards."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_router.scheduler.sequence import RunningSequence


class RunningBatch:
    """The sequences that run, and the slots that are free.

    A sequence gives its slot back when it leaves, or before, once its last step is planned.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._released: list[int] = []  # slots that the shards do not know to be free yet
        self._running: dict[int, RunningSequence] = {}  # by sequence id
        self._prefilling: dict[int, RunningSequence] = {}  # those with prompt left to plan

    def __len__(self) -> int:
        """Sequences that run."""
        return len(self._running)

    def __iter__(self) -> Iterator[RunningSequence]:
        """Those that run, in the order of admission."""
        return iter(self._running.values())

    @property
    def free_slots(self) -> int:
        """Slots that are free."""
        return len(self._free)

    def prefilling(self) -> list[RunningSequence]:
        """Those with prompt left to plan, the first in the queue's order first."""
        return sorted(self._prefilling.values(), key=lambda running: running.sequence.order)

    def of(self, sequence_id: int) -> RunningSequence | None:
        """A sequence as it runs; None where it does not."""
        return self._running.get(sequence_id)

    def pop_slot(self) -> int:
        """A free slot, for a sequence to `add`. `free_slots` must not be 0."""
        return self._free.pop()

    def add(self, running: RunningSequence) -> None:
        """A sequence was admitted; its prompt is to be computed."""
        self._running[running.sequence.id] = running
        self._prefilling[running.sequence.id] = running

    def prefilled(self, running: RunningSequence) -> None:
        """All of its prompt is planned."""
        del self._prefilling[running.sequence.id]

    def remove(self, running: RunningSequence) -> None:
        """The sequence ends or is preempted."""
        running.open = False
        del self._running[running.sequence.id]
        self._prefilling.pop(running.sequence.id, None)
        self.give_back_slot(running)

    def give_back_slot(self, running: RunningSequence) -> None:
        """Nothing more will be planned for it; results may still come."""
        if running.slot is not None:
            self._released.append(running.slot)
            self._free.append(running.slot)
            running.slot = None

    def pop_released(self) -> list[int]:
        """Slots given back since the last call."""
        released, self._released = self._released, []
        return released

    def check_integrity(self) -> None:
        """Raise AssertionError unless every slot is free or held by one sequence."""
        held = [running.slot for running in self if running.slot is not None]
        assert sorted(held + self._free) == list(range(self._slots))
