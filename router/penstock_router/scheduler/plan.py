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
    # (seat, tokens): chunks that begin with a sequence's last token, and go on with what a grammar
    # forces behind it.
    runs: list[tuple[Seat, list[int]]] = field(default_factory=list)
    chunks: list[tuple[Seat, int]] = field(default_factory=list)  # (seat, tokens) of prompts
    decode: list[Seat] = field(default_factory=list)
    decode_changed: bool = False
    groups: list[tuple[int, int]] = field(default_factory=list)  # of `decode`: see `sharing`

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Blocks that admissions start from, and their copies."""
        return [seat.copy for seat in self.admit if seat.copy is not None]

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that the step computes."""
        return sum(length for _, length in self.chunks)

    @property
    def run_tokens(self) -> int:
        """Tokens that the step computes in runs."""
        return sum(len(tokens) for _, tokens in self.runs)

    @property
    def rows(self) -> int:
        """Tokens that the first step computes."""
        return len(self.decode) + self.run_tokens + self.prefill_tokens

    @property
    def chunked(self) -> int:
        """Sequences that compute several tokens in the step."""
        return len(self.runs) + len(self.chunks)

    @property
    def last_step(self) -> int:
        """Number of the last step."""
        return self.step + self.repeat - 1

    def leave_out(self, seated: set[int | None]) -> None:
        """Whoever has none of these slots any more gets nothing."""
        self.grants = [(slot, block) for slot, block in self.grants if slot in seated]
        self.runs = [(seat, tokens) for seat, tokens in self.runs if seat.slot in seated]

    def add_chunk(self, seat: Seat, most: int) -> int:
        """Compute up to `most` more tokens of a seat's prompt; returns how many."""
        tokens = min(most, seat.target - seat.planned)
        if tokens > 0:
            self.chunks.append((seat, tokens))
        return tokens
