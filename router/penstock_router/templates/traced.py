"""Strings that know who wrote each of their characters.

A template's literals and the special tokens that it names are marked as the template's, and what
is done with them keeps the mark. Strings without marks are the client's: so whatever an operation
loses, and whatever we forget, falls to the client and stays text. Had the client's strings been
marked instead, everything forgotten would let a client write control tokens; and templates that
compare, search or look up what the client sent would deal with something else than plain strings.

Marked as well is the last message where the answer continues it, to find where it ends, and a
role, as a control token may be made around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex

# Origins of characters. The larger one wins where several turn into one.
CLIENT = 0
TEMPLATE = 1
ROLE = 2  # of a message; the client's
LAST = 3  # of the last message; the client's
END = 4  # where the last message ends; the client's


class Traced(str):
    """A string with the origin of each character. Otherwise it behaves as `str`.

    Methods that are not listed here give plain strings, which are the client's.
    """

    _origins: bytes  # named so that templates cannot reach it

    def __new__(cls, text: str, origins: bytes) -> Traced:
        self = super().__new__(cls, text)
        self._origins = origins
        return self

    def __str__(self) -> str:
        return self

    def _plain(self) -> str:
        return super().__str__()

    def __add__(self, other: str) -> str:
        if type(other) not in (str, Traced):  # Markup, or an error
            return self._plain() + other
        return Traced(super().__add__(other), self._origins + origins(other))

    def __radd__(self, other: str) -> str:
        if type(other) is not str:
            return other + self._plain()
        return Traced(str.__add__(other, self), origins(other) + self._origins)

    def __mul__(self, count: SupportsIndex) -> str:
        if not isinstance(count, int):  # an error
            return self._plain() * count
        return Traced(super().__mul__(count), self._origins * count)

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        kept = self._origins[key]
        return Traced(super().__getitem__(key), kept if isinstance(kept, bytes) else bytes([kept]))

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def join(self, pieces: Iterable[str]) -> str:
        if not isinstance(pieces, Iterable):
            return super().join(pieces)  # which says so in its own words
        text = super().join(pieces := list(pieces))
        joined: list[bytes] = []
        for piece in pieces:
            joined += (self._origins, origins(piece))
        return Traced(text, b"".join(joined[1:]))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        """The client's characters are never replaced by the template's."""
        text = super().replace(old, new, count)
        if not old:
            return text
        pieces: list[bytes] = []
        left = count.__index__()
        start = 0
        while left and (at := self.find(old, start)) >= 0:
            stop = at + len(old)
            clients = self._origins[at:stop].replace(bytes([TEMPLATE]), b"")
            inserted = bytes([max(clients)]) * len(new) if clients else origins(new)
            pieces += (self._origins[start:at], inserted)
            start = stop
            left -= 1
        return Traced(text, b"".join([*pieces, self._origins[start:]]))

    def strip(self, chars: str | None = None, /) -> str:
        stripped = super().strip(chars)
        start = len(self) - len(super().lstrip(chars))
        return self[start : start + len(stripped)]

    def lstrip(self, chars: str | None = None, /) -> str:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> str:
        return self[: len(super().rstrip(chars))]

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(self) - len(super().removeprefix(prefix)) :]

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(super().removesuffix(suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(super().rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._pieces(super().splitlines(keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        head, mid, tail = self._pieces(super().partition(sep))
        return head, mid, tail

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        head, mid, tail = self._pieces(super().rpartition(sep))
        return head, mid, tail

    def lower(self) -> str:
        return self._recased(super().lower())

    def upper(self) -> str:
        return self._recased(super().upper())

    def title(self) -> str:
        return self._recased(super().title())

    def capitalize(self) -> str:
        return self._recased(super().capitalize())

    def _pieces(self, pieces: Sequence[str], sep: str | None = None) -> list[str]:
        """Pieces of the text in their order, with `sep` or only white space between them."""
        found = []
        start = 0
        for piece in pieces:
            start = self.find(piece, start)
            found.append(self[start : start + len(piece)])
            start += len(piece) + len(sep or "")
        return found

    def _recased(self, text: str) -> str:
        """The text with other letters. One that becomes two (ß, SS) moves all behind it."""
        return Traced(text, self._origins) if len(text) == len(self) else text


# Messages of errors name types, and those of templates know only this one.
Traced.__name__ = Traced.__qualname__ = "str"
Traced.__module__ = "builtins"


def origins(text: str) -> bytes:
    """The origin of each character."""
    return text._origins if isinstance(text, Traced) else bytes(len(text))


def written(text: str, origin: int) -> Traced:
    """A text that comes from one place."""
    return Traced(text, bytes([origin]) * len(text))


def concat(pieces: Iterable[str]) -> str:
    """All pieces behind one another."""
    return EMPTY.join(pieces)


def runs(marks: bytes | bytearray, pattern: bytes) -> list[tuple[int, int]]:
    """Start and stop of each place where a regular expression matches the origins."""
    return [match.span() for match in re.finditer(pattern, marks)]


EMPTY = written("", TEMPLATE)
