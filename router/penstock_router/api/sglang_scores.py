"""Log-probabilities as SGLang's answers hold them: lists of [value, id, text].

A prompt may have a million of them. So they are written many at a time, and the event loop has its
turn between two parts of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from penstock_router.api.leaving_turns import leaving_turns
from penstock_router.request import GenerationRequest, TopTokens
from penstock_router.text import TextModel
from penstock_router.top_table import Tokens, TopTable, Values

# SGLang's frontend leaves out what is zero when it takes a mean. No float32 is so close to it.
CERTAIN = -1e-9
PART = 4096  # entries, some two milliseconds


class Entries:
    """A list that grows, as JSON. What is no finite number is null."""

    def __init__(self, text: TextModel | None) -> None:
        """text: None where entries hold no texts."""
        self._text = text
        self._json = bytearray(b"[")
        self.count = 0

    def add(self, ids: Sequence[int], values: Sequence[float | None]) -> None:
        """An entry for each token."""
        self._append(self._written(ids, np.array(values, np.float32)))

    def add_lists(self, ids: Tokens, values: Values) -> None:
        """A list of entries for each row."""
        rows, width = ids.shape
        entries = self._written(ids.ravel().tolist(), values.ravel())
        lists = (entries[row * width : (row + 1) * width] for row in range(rows))
        self._append([b"[%b]" % b",".join(some) for some in lists])

    def add_null(self) -> None:
        """In place of a list."""
        self._append([b"null"])

    @property
    def json(self) -> bytes:
        """The list as it is now."""
        return bytes(self._json) + b"]"

    def _append(self, items: Sequence[bytes]) -> None:
        if self.count and items:
            self._json += b","
        self._json += b",".join(items)
        self.count += len(items)

    def _written(self, ids: Sequence[int], values: Values) -> list[bytes]:
        shown = np.where(values == 0, np.float32(CERTAIN), values)
        texts = orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        if self._text is None:
            return [b"[%b,%d,null]" % pair for pair in zip(texts, ids, strict=False)]
        names = map(orjson.dumps, map(self._text.token_text, ids))
        return [b"[%b,%d,%b]" % each for each in zip(texts, ids, names, strict=False)]


class Scored:
    """The three lists of log-probabilities that a prompt has, and those that its answer has."""

    def __init__(self, text: TextModel | None, request: GenerationRequest, side: str) -> None:
        sampling = request.sampling
        self._side = side
        self._given = len(sampling.given)
        self._tokens = Entries(text)
        self._tops = Entries(text) if sampling.top_n else None
        self._ids = Entries(text) if self._given else None

    def add(self, token_id: int, value: float, top: TopTokens) -> None:
        """A token, with the likely ones of its place and behind them the given ones."""
        table = TopTable()
        table.append(top)
        self._add([token_id], [value], *table.rows(0, 1))

    def extend(
        self,
        ids: Sequence[int],
        values: Sequence[float | None],
        tops: Sequence[TopTokens],
        start: int,
    ) -> None:
        """The tokens of a prompt from place `start` on. Where there is no value, as of the first of
        all, there are no lists either."""
        while start < len(ids) and values[start] is None:
            self._add_bare(ids[start])
            start += 1
        table = TopTable.of(tops) if tops else TopTable(len(ids))
        step = max(1, PART // (1 + len(table[start]))) if start < len(ids) else 1
        for first in leaving_turns(range(start, len(ids), step), 1):
            part = slice(first, min(first + step, len(ids)))
            self._add(ids[part], values[part], *table.rows(part.start, part.stop))

    def _add_bare(self, token_id: int) -> None:
        self._tokens.add([token_id], [None])
        for lists in (self._tops, self._ids):
            if lists is not None:
                lists.add_null()

    def _add(
        self,
        ids: Sequence[int],
        values: Sequence[float | None],
        top_ids: Tokens,
        top_values: Values,
    ) -> None:
        self._tokens.add(ids, values)
        cut = top_ids.shape[1] - self._given
        if self._tops is not None:
            self._tops.add_lists(top_ids[:, :cut], top_values[:, :cut])
        if self._ids is not None:
            self._ids.add_lists(top_ids[:, cut:], top_values[:, cut:])

    @property
    def fields(self) -> dict[str, object]:
        """What `meta_info` says of them."""
        side, tokens = self._side, self._tokens
        shown: dict[str, object] = {f"{side}_token_logprobs": orjson.Fragment(tokens.json)}
        if side == "output":
            shown["output_token_logprobs_length"] = tokens.count
        if self._tops is not None:
            shown[f"{side}_top_logprobs"] = orjson.Fragment(self._tops.json)
        if self._ids is not None:
            shown[f"{side}_token_ids_logprobs"] = orjson.Fragment(self._ids.json)
        return shown
