"""Log-probabilities of choices, each by its own tokens, in one request behind their prompt.

A choice's own tokens are those behind the tokens that all choices share with the prompt. So where a
tokenizer joins the prompt's last letters with a choice's first ones, that token counts, for every
choice from the same place on, and the sums are the probabilities of one and the same question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from penstock.lang.backend import BackendError
from penstock.lang.backends.http import Connections
from penstock.lang.choices import Entry, Scores
from penstock.lang.prompt import Prompt

JOINED = (
    4  # tokens at the prompt's end that a choice may change; where it changes more, all are read
)
LARGEST = 1_000_000  # characters of a request's texts; more choices take several


class Scorer:
    """Scores on one server."""

    def __init__(self, server: Connections, fields: Callable[[Prompt], dict[str, Any]]) -> None:
        """fields: of a request, for a prompt."""
        self._server = server
        self._fields = fields
        self._beginning: list[int] | None = None

    def scores(self, prompt: Prompt, choices: Sequence[str], *, alone: bool) -> Scores:
        """alone: without the prompt too. Raises BackendError."""
        fields = self._fields(prompt)
        ids = self._ids(fields)
        start = max(len(ids) - 1 - JOINED, 0)
        rows = self._rows(fields, choices, start)
        shared = _shared(rows, ids[start:])
        if shared == 0 and start > 0:
            start = 0
            rows = self._rows(fields, choices, start)
            shared = _shared(rows, ids)
        # The first entry of a row has no value: nothing was computed before it.
        own = [row[max(shared, 1) :] for row in rows]
        if not all(own):
            raise BackendError("a choice adds no token to the prompt, so it cannot be scored")
        return Scores(own, self._alone(own) if alone else ())

    def _ids(self, fields: dict[str, Any]) -> list[int]:
        """Tokens of the prompt, which the server computes at the same time."""
        body = fields | {"sampling_params": {"max_new_tokens": 0}, "return_prompt_token_ids": True}
        ids: list[int] = self._server.ask("/generate", body)["prompt_token_ids"]
        return ids

    def _rows(
        self, fields: dict[str, Any], choices: Sequence[str], start: int
    ) -> list[list[Entry]]:
        """For each choice the entries of prompt and choice from a place on."""
        text: str = fields["text"]
        rows: list[list[Entry]] = []
        size = len(text) + max(map(len, choices))
        for some in _parts(choices, max(LARGEST // max(size, 1), 1)):
            rows += self._scored({**fields, "text": [text + choice for choice in some]}, start)
        return rows

    def _scored(self, fields: dict[str, Any], start: int) -> list[list[Entry]]:
        answers = self._server.ask(
            "/generate",
            {
                **fields,
                "sampling_params": {"max_new_tokens": 0, "temperature": 0},
                "return_logprob": True,
                "return_text_in_logprobs": True,
                "logprob_start_len": start,
            },
        )
        return [answer["meta_info"]["input_token_logprobs"] for answer in answers]

    def _alone(self, own: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
        """The same tokens at the beginning of a text. Where no token stands before a text, the
        first has no value."""
        if self._beginning is None:
            body = {"prompt": "", "add_special_tokens": True}
            self._beginning = self._server.ask("/tokenize", body)["tokens"]
        before = self._beginning
        inputs = [before + [entry[1] for entry in row] for row in own]
        return [row[len(before) :] for row in self._scored({"input_ids": inputs}, 0)]


def _shared(rows: Sequence[Sequence[Entry]], ids: Sequence[int]) -> int:
    """How many tokens at the beginning of each row are the prompt's."""
    counts = []
    for row in rows:
        pairs = zip(row, ids, strict=False)
        counts.append(sum(1 for _ in takewhile(lambda pair: pair[0][1] == pair[1], pairs)))
    return min(counts)


def _parts(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
