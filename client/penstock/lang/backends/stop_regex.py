"""Ends a text where a regular expression is found in it, while it is streamed.

The server looks for strings only. Text that may be part of a match is held back, as far as the
expression says how long a match may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from re import _parser  # type: ignore[attr-defined]

from penstock.lang.backend import Generation

MOST_HELD = 256  # characters


class StopRegex:
    """Raises ValueError for an expression that Python's `re` cannot compile."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = []
        self._held = 0
        for pattern in patterns:
            try:
                self._patterns.append(re.compile(pattern))
                longest = _parser.parse(pattern).getwidth()[1]
            except re.error as error:
                raise ValueError(f"`stop_regex` {pattern!r} is no expression: {error}") from None
            self._held = max(self._held, min(int(longest), MOST_HELD) - 1, 0)

    def cut(self, answers: Iterator[Generation]) -> Iterator[Generation]:
        """The same up to the first match, which is no part of it."""
        last = None
        for answer in answers:
            text, last = str(answer.text), answer
            if found := self._find(text):
                start, pattern = found
                reason = {"type": "stop", "matched": pattern}
                yield Generation(text[:start], {**_meta(answer), "finish_reason": reason})
                close = getattr(answers, "close", None)
                if close is not None:
                    close()
                return
            shown = text[: max(len(text) - self._held, 0)]
            yield Generation(shown, answer.meta)
        if last is not None:
            yield last

    def _find(self, text: str) -> tuple[int, str] | None:
        matches = [m for pattern in self._patterns if (m := pattern.search(text)) and m[0]]
        first = min(matches, key=lambda match: match.start(), default=None)
        return None if first is None else (first.start(), first.re.pattern)


def _meta(answer: Generation) -> dict[str, object]:
    assert isinstance(answer.meta, dict)
    return answer.meta
