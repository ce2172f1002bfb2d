"""Tokens to text, one token at a time: what each of `detokenizers` does.

A table holds the text of each token, so that the common token costs one look-up. Tokens that are
not whole characters by themselves wait until their bytes complete one.

The text of a sequence equals the tokenizer's own decoding of prompt and sequence behind the
prompt. One exception, of tokenizers with `<0xNN>` byte tokens: their decoder blanks a whole run of
byte tokens when one of them is wrong, so what was sent could change later. Here the bytes that are
wrong become U+FFFD, and those before them stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """The text of one sequence."""

    def step(self, token_id: int) -> str:
        """What the token adds to the text; the name of a special token. May be empty."""

    def flush(self) -> str:
        """What an incomplete character at the end comes to."""

    @property
    def pending(self) -> bool:
        """Whether a character is incomplete, or its text may still change."""


class TokenTable(Protocol):
    """What each token stands for."""

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        """Of a sequence that continues the prompt."""

    def text(self, token_id: int) -> str:
        """A token by itself, within a text: with its space, U+FFFD for part of a character."""

    def raw(self, token_id: int) -> bytes | None:
        """Its bytes; None where they are not known."""
