"""Regular expressions that end a text.

They are searched by llguidance's automata, byte by byte: each byte is read once, whatever the
expression. Python's `re` would read the text again for every token, and some expressions never end.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# Work of the automata, some 14,000 units a millisecond of the event loop's time.
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=20_000,
    max_lexer_states=20_000,
    verbose_errors=False,
)


class StopPatterns:
    """Some expressions, of which the first that is found ends a text.

    Making one takes milliseconds. Raises ValueError with the end of a sentence.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._searched = [(pattern, _matcher(pattern)) for pattern in patterns]

    def search(self) -> PatternSearch:
        """For one text, from its beginning."""
        return PatternSearch([(pattern, one.deep_copy()) for pattern, one in self._searched])


class PatternSearch:
    """Feed it a text in pieces."""

    def __init__(self, searched: Sequence[tuple[str, LLMatcher]]) -> None:
        self._searched = searched
        self.found: str | None = None  # the expression
        self.failed = False  # one has become too large to go on with

    def feed(self, text: str) -> bool:
        """Whether the text ends here, because an expression is found or the search failed."""
        tokens = list(text.encode(errors="replace"))
        for pattern, matcher in self._searched:
            taken = matcher.try_consume_tokens(tokens)
            if matcher.is_accepting():
                self.found = pattern
            elif taken < len(tokens):
                self.failed = True
            else:
                continue
            return True
        return False


def _matcher(pattern: str) -> LLMatcher:
    """Takes bytes up to the end of the first place that matches."""
    body = pattern.replace("/", r"\/").replace("\n", r"\n")
    grammar = f"start: up_to\nup_to[lazy]: /(?s:.*)(?:{body})/\n"
    matcher = LLMatcher(_bytes(), LLMatcher.grammar_from_lark(grammar), log_level=0, limits=LIMITS)
    if matcher.is_error():
        lines = [line.strip() for line in matcher.get_error().splitlines()]
        reason = next((line for line in lines[1:] if line.startswith("error: ")), lines[0])
        raise ValueError(f"cannot be used: {reason[:200]}")
    if matcher.is_accepting():
        raise ValueError("must not match the empty text")
    return matcher


@functools.cache
def _bytes() -> LLTokenizer:
    """A token a byte."""
    return LLTokenizer("byte")
