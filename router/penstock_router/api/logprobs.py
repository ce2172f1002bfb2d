"""Log-probabilities as answers show them.

On OpenAI's routes one object a choice: `add` each token, `take` what was added since the last time.
So a stream and a whole answer say the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from penstock_router.api.leaving_turns import leaving_turns
from penstock_router.request import TopTokens
from penstock_router.text import TextModel

PLACES = 64  # of a prompt, with some 20 tokens each: a millisecond


def number(value: float) -> float | None:
    """A log-probability with the digits that float32 has; null for none or minus infinity."""
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _id_name(token_id: int) -> str:
    return f"token_id:{token_id}"


class Logprobs(Protocol):
    """Of one choice."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""

    def add(self, token_id: int, shown: str, logprob: float, top: TopTokens) -> None:
        """A token. shown: what it adds to the text, a stop sequence included; the name of a
        special token."""

    def take(self) -> dict[str, Any]:
        """The `logprobs` of a choice or chunk."""


class ChatLogprobs:
    """As chat completions show them: of every token that is text.

    by_id: tokens are called `token_id:123`, as vLLM's `return_tokens_as_token_ids` has it.
    """

    def __init__(self, text: TextModel, by_id: bool = False) -> None:
        self._text = text
        self._name = _id_name if by_id else text.token_text
        self._special = text.tokenizer.special_ids
        self._entries: list[dict[str, Any]] = []

    @property
    def waiting(self) -> bool:
        return bool(self._entries)

    def add(self, token_id: int, shown: str, logprob: float, top: TopTokens) -> None:
        if token_id not in self._special:
            likely = [self._entry(token, value) for token, value in top]
            self._entries.append(self._entry(token_id, logprob) | {"top_logprobs": likely})

    def take(self) -> dict[str, Any]:
        entries, self._entries = self._entries, []
        return {"content": entries}

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self._text.token_bytes(token_id)
        return {
            "token": self._name(token_id),
            "logprob": number(logprob),
            "bytes": None if raw is None else list(raw),
        }


class CompletionLogprobs:
    """As plain completions show them: four lists, of which the third names tokens by their texts.

    start: where the choice's own text begins in the text that is shown. everything: special tokens
    have entries too; else only tokens that are text. by_id: as of `ChatLogprobs`.
    """

    def __init__(
        self, text: TextModel, start: int = 0, everything: bool = False, by_id: bool = False
    ) -> None:
        self._text = text
        self._name = _id_name if by_id else text.token_text
        self._special = text.tokenizer.special_ids
        self._everything = everything
        self._position = start
        self._clear()

    @property
    def waiting(self) -> bool:
        return bool(self._tokens)

    def add(self, token_id: int, shown: str, logprob: float, top: TopTokens) -> None:
        special = token_id in self._special
        if special and not self._everything:
            return
        own, start = self._text.token_text(token_id), self._position
        if not special:
            self._position += len(shown)
            # Before its own text may stand U+FFFD, for a character that it left incomplete.
            if shown.endswith(own):
                start = self._position - len(own)
        name = self._name(token_id)
        self._tokens.append(name)
        self._logprobs.append(number(logprob))
        self._tops.append(self._named(token_id, name, logprob, top))
        self._offsets.append(start)

    def add_prompt(
        self,
        ids: Sequence[int],
        offsets: Sequence[int],
        logprobs: Sequence[float | None],
        tops: Sequence[TopTokens],
    ) -> None:
        """All tokens of a prompt that is repeated, before any that was generated.

        offsets: where their texts begin. logprobs: None for the first. tops: the most likely tokens
        in place of each, or nothing where they were not asked for.
        """
        texts = [self._name(token_id) for token_id in ids]
        likely = tops or [()] * len(ids)
        self._tokens += texts
        self._offsets += offsets
        rows = zip(ids, texts, logprobs, likely, strict=True)
        for token_id, own, value, top in leaving_turns(rows, PLACES):
            self._logprobs.append(None if value is None else number(value))
            named = None if value is None else self._named(token_id, own, value, top)
            self._tops.append(named and orjson.Fragment(orjson.dumps(named)))

    def take(self) -> dict[str, Any]:
        taken = {
            "tokens": self._tokens,
            "token_logprobs": self._logprobs,
            "top_logprobs": self._tops,
            "text_offset": self._offsets,
        }
        self._clear()
        return taken

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._tops: list[dict[str, float | None] | orjson.Fragment | None] = []
        self._offsets: list[int] = []

    def _named(
        self, token_id: int, own: str, logprob: float, top: TopTokens
    ) -> dict[str, float | None]:
        """The most likely tokens and the token itself, each once.

        Different tokens may have one text, as parts of characters do. The token itself has it as
        its name, else the most likely of them; the others are named by their ids.
        """
        named = {own: number(logprob)}
        for other, value in top:
            if other != token_id:
                name = self._name(other)
                named[name if name not in named else _id_name(other)] = number(value)
        return named
