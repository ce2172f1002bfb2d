"""How many things a body of JSON holds, counted before Python makes an object of each.

A parser holds the interpreter's lock: two megabytes of `[],` hold up every request for some 100 ms.
This scan does not hold it, and takes a millisecond or two of another core: it goes by pieces, and
ends at the first that is too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_THINGS = 65_536  # objects, lists and strings, those of keys among them
# Values in all. Only token ids are that many, and a body of the largest size by default holds
# hardly more, as most have five digits.
MOST_VALUES = 262_144
# Objects and lists within one another. Answers hold parts of what was asked, and orjson writes 254
# levels where it reads 1,024.
MOST_LEVELS = 200
PIECE_BYTES = 256 * 1024
QUOTE, BACKSLASH, COMMA = ord('"'), ord("\\"), ord(",")
OPENINGS, CLOSINGS = (ord("["), ord("{")), (ord("]"), ord("}"))


@dataclass(frozen=True, slots=True)
class Shape:
    """What was counted. Commas stand between values."""

    openings: int = 0  # of objects and lists
    quotes: int = 0  # that begin or end a string
    commas: int = 0

    def __add__(self, other: Shape) -> Shape:
        return Shape(
            self.openings + other.openings,
            self.quotes + other.quotes,
            self.commas + other.commas,
        )

    def fault(self, most_values: int) -> str | None:
        """What is too much, as a rule."""
        if self.openings + self.quotes // 2 > MOST_THINGS:
            return f"at most {MOST_THINGS} objects, lists and strings altogether"
        if self.commas >= most_values:
            return f"at most {most_values} values altogether"
        return None


def fault_of(data: bytes, most_values: int = MOST_VALUES) -> str | None:
    """The rule that a body breaks; None where it breaks none.

    Many more brackets and commas than the limits may stand in strings, as in a program's source:
    only then does it matter where strings are.
    """
    text = np.frombuffer(data, np.uint8)
    if _shape(text, _count(text == QUOTE)).fault(most_values) is None:
        return fault_of_levels(data)
    shape = Shape()
    for piece in shapes(text):
        shape += piece
        if fault := shape.fault(most_values):
            return fault
    return fault_of_levels(data)


def fault_of_levels(data: bytes) -> str | None:
    """The same for how deeply things are nested. At once where there are few of them."""
    if data.count(b"[") + data.count(b"{") <= MOST_LEVELS:
        return None
    text, strings, level = np.frombuffer(data, np.uint8), _Strings(), 0
    for start in range(0, len(text), PIECE_BYTES):
        piece = text[start : start + PIECE_BYTES]
        inside, _ = strings.follow(piece)
        steps = np.isin(piece, OPENINGS).astype(np.int32) - np.isin(piece, CLOSINGS)
        levels = level + np.cumsum(np.where(inside, 0, steps))
        if levels.max() > MOST_LEVELS:
            return f"at most {MOST_LEVELS} objects and lists within one another"
        level = int(levels[-1])
    return None


def shape_of(data: bytes) -> Shape:
    """All that a text of JSON holds."""
    return sum(shapes(np.frombuffer(data, np.uint8)), Shape())


def shapes(text: NDArray[np.uint8]) -> Iterator[Shape]:
    """Those of a body's pieces, exact for what is JSON."""
    strings = _Strings()
    for start in range(0, len(text), PIECE_BYTES):
        piece = text[start : start + PIECE_BYTES]
        inside, quotes = strings.follow(piece)
        yield _shape(piece[~inside], quotes)


class _Strings:
    """Where strings are, in pieces that follow one another."""

    def __init__(self) -> None:
        self._inside = False
        self._escaped = False  # the first byte of the next piece

    def follow(self, text: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
        """Which bytes belong to strings, where the quote that ends one counts as outside; and how
        many quotes there are that are none of a string's characters."""
        quotes = (text == QUOTE) & ~self._escapes(text)
        inside: NDArray[np.bool_] = np.logical_xor.accumulate(quotes)
        if self._inside:
            np.logical_not(inside, out=inside)
        self._inside = bool(inside[-1])
        return inside, _count(quotes)

    def _escapes(self, text: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which bytes stand behind an odd number of backslashes."""
        slashes = text == BACKSLASH
        if not self._escaped and not slashes.any():
            return np.zeros(len(text), np.bool_)
        places = np.arange(len(text), dtype=np.int32)
        # A backslash that is escaped itself begins no run.
        others = np.where(slashes, np.int32(-1), places)
        if self._escaped:
            others[0] = 0
        run = places - np.maximum.accumulate(others)  # of backslashes that end here
        odd = run % 2 == 1
        escaped = np.concatenate(([self._escaped], odd[:-1]))
        self._escaped = bool(odd[-1])
        return escaped


def _shape(text: NDArray[np.uint8], quotes: int) -> Shape:
    openings = sum(_count(text == sign) for sign in OPENINGS)
    return Shape(openings, quotes, _count(text == COMMA))


def _count(flags: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))
