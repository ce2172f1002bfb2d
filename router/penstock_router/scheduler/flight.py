"""Steps in flight, as they were planned, and what their results mean."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

from penstock_router.request import FinishReason
from penstock_router.scheduler.sequence import RunningSequence, Sequence


@dataclass(slots=True)
class Outcome:
    """What a step's result means for one sequence: tokens, and the end if no more follow.

    A sequence of which only the prompt was to be computed ends without a token.
    """

    sequence: Sequence
    row: int  # of the result
    tokens: list[int]  # the last is the row's; those before it were forced
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk in flight, as it was planned."""

    running: RunningSequence
    end: int  # tokens of the sequence up to where it computes
    samples: bool  # it reaches the end of what is known, so its last row brings a token
    run: Rows[int] = ()  # the sequence's last token, and those that the chunk brings in front


@dataclass(frozen=True, slots=True)
class Flight:
    """A step in flight. Its result has a row for each that decodes and each chunk that samples."""

    step: int
    decode: list[RunningSequence]
    chunks: list[Chunk]

    @property
    def batch(self) -> list[RunningSequence]:
        """Of all that take part."""
        return [*self.decode, *(chunk.running for chunk in self.chunks)]

    @property
    def rows(self) -> list[RunningSequence]:
        """Of the result's rows."""
        return [*self.decode, *(chunk.running for chunk in self.chunks if chunk.samples)]

    @property
    def runs(self) -> list[Rows[int]]:
        """Tokens that are known in front of each row's own."""
        none: list[Rows[int]] = [()] * len(self.decode)
        return none + [chunk.run[1:] for chunk in self.chunks if chunk.samples]
