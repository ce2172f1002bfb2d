"""How many things a body of JSON holds, counted before Python makes an object of each.

A parser holds the interpreter's lock: two megabytes of `[],` hold up every request for some 50 ms.
This scan does not hold it, and takes a few milliseconds of another core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_CONTAINERS_AND_KEYS = 65_536
QUOTE, BACKSLASH = ord('"'), ord("\\")


def containers_and_keys(data: bytes) -> int:
    """How many objects, lists and keys there are; exact for what is JSON.

    Many more brackets and colons than the limit may stand in strings, as in a program's source.
    """
    text = np.frombuffer(data, np.uint8)
    most = _openings(text)
    return most if most <= MOST_CONTAINERS_AND_KEYS else _openings(text[~_in_strings(text)])


def _openings(text: NDArray[np.uint8]) -> int:
    return sum(int(np.count_nonzero(text == ord(sign))) for sign in "[{:")


def _in_strings(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes belong to strings; the quote that ends one counts as outside."""
    quotes = (text == QUOTE) & ~_escaped(text)
    return np.logical_xor.accumulate(quotes)


def _escaped(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes stand behind an odd number of backslashes."""
    places = np.arange(len(text), dtype=np.int32)
    others = np.where(text == BACKSLASH, np.int32(-1), places)
    run = places - np.maximum.accumulate(others)  # of backslashes that end here
    return np.concatenate(([False], run[:-1] % 2 == 1))
