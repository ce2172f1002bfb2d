"""What one command asks of the shards."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_router.scheduler.sequence import Seat


@dataclass(slots=True)
class StepPlan:
    """One step, or `repeat` decode steps, as differences to the plan before."""

    step: int  # number of the first step
    repeat: int = 1
    release: list[int] = field(default_factory=list)  # slots
    admit: list[Seat] = field(default_factory=list)
    grants: list[tuple[int, int]] = field(default_factory=list)  # (slot, block)
    chunks: list[tuple[Seat, int]] = field(default_factory=list)  # (seat, tokens)
    decode: list[Seat] = field(default_factory=list)
    decode_changed: bool = False
    groups: list[tuple[int, int]] = field(default_factory=list)  # of `decode`: see `sharing`

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that the step computes."""
        return sum(length for _, length in self.chunks)

    @property
    def last_step(self) -> int:
        """Number of the last step."""
        return self.step + self.repeat - 1

    def add_chunk(self, seat: Seat, most: int) -> int:
        """Compute up to `most` more tokens of a seat's prompt; returns how many."""
        tokens = min(most, seat.target - seat.planned)
        if tokens > 0:
            self.chunks.append((seat, tokens))
        return tokens
