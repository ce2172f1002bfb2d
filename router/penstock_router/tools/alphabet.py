"""Markers that are tokens, as characters that no text has.

A token that a format's markers name becomes one lone surrogate (U+D800 and up), which text decoded
from bytes never holds. So a parser works on strings, and still no text that merely spells a marker
is taken for it. Where the vocabulary has no such token the marker is matched as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

_FIRST = 0xD800


class Alphabet:
    """The marker tokens of one model for one set of formats."""

    def __init__(
        self, tokens: Mapping[str, int], special_ids: frozenset[int], literals: Iterable[str]
    ) -> None:
        """tokens: ids of added tokens by their spelling. literals: the markers of the formats."""
        text = "\n".join(literals)
        # Words and spaces may be added tokens too; they mark nothing.
        marks = (t for t in tokens if len(t) > 2 and t in text and not (t.isspace() or t.isalpha()))
        named = sorted(marks, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, named)) or r"(?!)")
        self._characters = {t: chr(_FIRST + place) for place, t in enumerate(named)}
        self.characters = {tokens[t]: c for t, c in self._characters.items()}
        self.ids = {c: i for i, c in self.characters.items()}
        # What a marker reads as where it marks nothing: special tokens are never shown.
        shown = {c: "" if tokens[t] in special_ids else t for t, c in self._characters.items()}
        self._table = str.maketrans(shown)

    def encoded(self, literal: str) -> str:
        """A marker as it stands in what parsers read: the longest token at each place."""
        return self._spelled.sub(lambda match: self._characters[match[0]], literal)

    def shown(self, text: str) -> str:
        """What a reader sees of it."""
        return text.translate(self._table) if self._surrogates.search(text) else text

    def is_token(self, literal: str) -> bool:
        """Whether a marker is, or begins with, a token."""
        return self.encoded(literal)[:1] in self.ids

    @cached_property
    def _surrogates(self) -> re.Pattern[str]:
        return re.compile("[\ud800-\udfff]")
