"""The most likely tokens of many places, kept as tables of numbers.

Each takes eight bytes. As one of Python's pairs it took a hundred: a prompt of 100,000 tokens that
asked for 276 at each of its places took gigabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from penstock_router.request import TopTokens


class TopTable(Sequence[TopTokens]):
    """A list of `TopTokens` that grows. What is looked at is made into pairs."""

    __slots__ = ("_ends", "_logprobs", "_tokens")

    def __init__(self, places: int = 0) -> None:
        """places: so many without any stand in front."""
        self._tokens, self._logprobs = array("i"), array("f")
        self._ends = array("Q", [0]) * places

    def append(self, top: TopTokens) -> None:
        """Those of the next place."""
        for token, logprob in top:
            self._tokens.append(token)
            self._logprobs.append(logprob)
        self._ends.append(len(self._tokens))

    def extend(self, tokens: bytes, logprobs: bytes, width: int) -> None:
        """Those of the next places, `width` of each. Raises ValueError where they do not come out
        even."""
        if len(tokens) != len(logprobs) or width < 1 or len(tokens) % (4 * width):
            raise ValueError(f"{len(tokens)} and {len(logprobs)} bytes are no rows of {width}")
        first = len(self._tokens)
        self._tokens.frombytes(tokens)
        self._logprobs.frombytes(logprobs)
        self._ends.extend(range(first + width, len(self._tokens) + 1, width))

    @property
    def without(self) -> int:
        """Places in front that have none."""
        return next((place for place, end in enumerate(self._ends) if end), len(self._ends))

    @property
    def tokens(self) -> bytes:
        """Of all places, one behind the other, 4 bytes each."""
        return self._tokens.tobytes()

    @property
    def logprobs(self) -> bytes:
        """The same of their log-probabilities."""
        return self._logprobs.tobytes()

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> TopTokens: ...

    @overload
    def __getitem__(self, place: slice) -> list[TopTokens]: ...

    def __getitem__(self, place: int | slice) -> TopTokens | list[TopTokens]:
        if isinstance(place, slice):
            return [self._at(one) for one in range(len(self))[place]]
        return self._at(range(len(self))[place])

    def __iter__(self) -> Iterator[TopTokens]:
        return map(self._at, range(len(self)))

    def _at(self, place: int) -> TopTokens:
        start, end = self._ends[place - 1] if place else 0, self._ends[place]
        pairs = zip(self._tokens[start:end], self._logprobs[start:end], strict=True)
        return list(pairs) if end > start else ()
