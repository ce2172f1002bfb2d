"""Who sits in which slot of the shards."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_router.scheduler.sequence import Seat


class Seats:
    """The seats that are taken, and the slots that are not.

    A seat gives its slot back when it is vacated, or before, once its last step is planned.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._released: list[int] = []  # slots that the shards do not know to be free yet
        self._taken: dict[int, Seat] = {}  # by sequence id
        self._prefilling: dict[int, Seat] = {}  # those with prompt left to plan, by sequence id

    def __len__(self) -> int:
        """Seats taken."""
        return len(self._taken)

    def __iter__(self) -> Iterator[Seat]:
        """The seats taken, in the order of admission."""
        return iter(self._taken.values())

    @property
    def vacant(self) -> int:
        """Slots that are free."""
        return len(self._free)

    def prefilling(self) -> list[Seat]:
        """The seats with prompt left to plan, the first in the queue's order first."""
        return sorted(self._prefilling.values(), key=lambda seat: seat.sequence.order)

    def of(self, sequence_id: int) -> Seat | None:
        """Where a sequence sits."""
        return self._taken.get(sequence_id)

    def pop_slot(self) -> int:
        """A free slot, for a seat to `take`. `vacant` must not be 0."""
        return self._free.pop()

    def take(self, seat: Seat) -> None:
        """A sequence sits down, with its prompt to be computed."""
        self._taken[seat.sequence.id] = seat
        self._prefilling[seat.sequence.id] = seat

    def prefilled(self, seat: Seat) -> None:
        """All of its prompt is planned."""
        del self._prefilling[seat.sequence.id]

    def vacate(self, seat: Seat) -> None:
        """The sequence ends or is preempted."""
        seat.open = False
        del self._taken[seat.sequence.id]
        self._prefilling.pop(seat.sequence.id, None)
        self.give_back_slot(seat)

    def give_back_slot(self, seat: Seat) -> None:
        """Nothing more will be planned for the seat; results may still come."""
        if seat.slot is not None:
            self._released.append(seat.slot)
            self._free.append(seat.slot)
            seat.slot = None

    def pop_released(self) -> list[int]:
        """Slots given back since the last call."""
        released, self._released = self._released, []
        return released

    def check_integrity(self) -> None:
        """Raise AssertionError unless every slot is free or held by one seat."""
        held = [seat.slot for seat in self if seat.slot is not None]
        assert sorted(held + self._free) == list(range(self._slots))
