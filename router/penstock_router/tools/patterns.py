"""Regular expressions in schemas of clients: read, and never compiled or run by Python.

Python makes a table of 64 KiB for each set of characters beyond Latin ones: four kilobytes of
`[é-ﬀ]` hold the interpreter's lock for seconds, and an expression that runs may hold it for ever.
Its parser takes a microsecond a character.
"""

from __future__ import annotations

import re
from re import _parser  # type: ignore[attr-defined]

MAX_PATTERN = 4096  # characters


def is_pattern(value: object) -> bool:
    """Whether it is an expression, of a length that is allowed."""
    if not isinstance(value, str) or len(value) > MAX_PATTERN:
        return False
    try:
        _parser.parse(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def may_be_empty(pattern: str) -> bool:
    """Whether the empty text matches an expression."""
    least: int = _parser.parse(pattern).getwidth()[0]
    return least == 0
