"""The most likely tokens of many places, kept as tables of numbers.

Each takes eight bytes. As one of Python's pairs it took a hundred: a prompt of 100,000 tokens that
asked for 276 at each of its places took gigabytes.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from penstock_router.request import TopTokens

Tokens: TypeAlias = NDArray[np.int32]
Values: TypeAlias = NDArray[np.float32]


class TopTable(Sequence[TopTokens]):
    """A list of `TopTokens` that grows. What is looked at is made into pairs."""

    __slots__ = ("_ends", "_logprobs", "_tokens")

    def __init__(self, places: int = 0) -> None:
        """places: so many without any stand in front."""
        self._tokens, self._logprobs = array("i"), array("f")
        self._ends = array("Q", [0]) * places

    @classmethod
    def of(cls, tops: Sequence[TopTokens]) -> TopTable:
        """A list as a table: itself where it is one."""
        if isinstance(tops, TopTable):
            return tops
        table = cls()
        for top in tops:
            table.append(top)
        return table

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

    def rows(self, start: int, stop: int) -> tuple[Tokens, Values]:
        """Ids and log-probabilities of places start..stop, [places, width] each. Raises ValueError
        where some have more than others."""
        ends = [self._ends[start - 1] if start else 0, *self._ends[start:stop]]
        widths = {end - begin for begin, end in itertools.pairwise(ends)}
        if len(widths) > 1:
            raise ValueError(f"places {start} to {stop} are no rows of one width")
        shape, part = (len(ends) - 1, *(widths or {0})), slice(ends[0], ends[-1])
        tokens = np.array(self._tokens[part], np.int32).reshape(shape)
        return tokens, np.array(self._logprobs[part], np.float32).reshape(shape)

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
