"""Outputs that token ids may end, or that show special tokens."""

from __future__ import annotations

from typing import Any

from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.api.reply import ReplyOutput
from penstock_router.text.detokenizer import Detokenizer


class _TokenEnds(Output):
    """Before `min_tokens` tokens nothing is taken for a stop sequence.

    What ends a text is no part of it, even where special tokens are shown.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        special_ids: frozenset[int],
        options: Options,
        *rest: Any,
        eos_ids: frozenset[int],
    ) -> None:
        hidden = frozenset[int]() if options.show_special else special_ids
        super().__init__(detokenizer, hidden, options, *rest)
        rules = options.rules
        self._stop_tokens = frozenset(rules.stop_token_ids)
        ends = self._stop_tokens if options.ignore_eos else self._stop_tokens | eos_ids
        self._hidden = frozenset() if options.keep_stop else ends
        self._count, self._least = 0, rules.min_tokens
        self._later = self._matcher, self._stops
        if self._least:
            self._matcher, self._stops = None, ()

    def push(self, token_id: int) -> str:
        if self._count == self._least:
            self._matcher, self._stops = self._later
        self._count += 1
        text = self.skip(token_id) if token_id in self._hidden else super().push(token_id)
        if token_id in self._stop_tokens:
            self.stopped, self.stop_reason = True, token_id
        return text


class RuledOutput(_TokenEnds):
    """Of a sequence that is text."""


class RuledReply(_TokenEnds, ReplyOutput):
    """Of a sequence that is read."""
