"""What one command asks of the shards."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_router.scheduler.sequence import RunningSequence


@dataclass(slots=True)
class StepPlan:
    """One step, or `repeat` decode steps, as differences to the plan before."""

    step: int  # number of the first step
    repeat: int = 1
    release: list[int] = field(default_factory=list)  # slots
    admit: list[RunningSequence] = field(default_factory=list)
    grants: list[tuple[int, int]] = field(default_factory=list)  # (slot, block)
    # (running, tokens): chunks that begin with a sequence's last token, and go on with what a
    # grammar forces behind it.
    runs: list[tuple[RunningSequence, list[int]]] = field(default_factory=list)
    # (running, tokens) of prompts.
    chunks: list[tuple[RunningSequence, int]] = field(default_factory=list)
    decode: list[RunningSequence] = field(default_factory=list)
    decode_changed: bool = False
    groups: list[tuple[int, int]] = field(default_factory=list)  # of `decode`: see `sharing`

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Blocks that admissions start from, and their copies."""
        return [running.copy for running in self.admit if running.copy is not None]

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

    def leave_out(self, slots: set[int | None]) -> None:
        """Whoever has none of these slots any more gets nothing."""
        self.grants = [(slot, block) for slot, block in self.grants if slot in slots]
        self.runs = [(one, tokens) for one, tokens in self.runs if one.slot in slots]

    def add_chunk(self, running: RunningSequence, most: int) -> int:
        """Compute up to `most` more tokens of a prompt; returns how many."""
        tokens = min(most, running.target - running.planned)
        if tokens > 0:
            self.chunks.append((running, tokens))
        return tokens
