"""The visible text of a sequence that token ids may end, or that shows special tokens."""

from __future__ import annotations

from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.text.detokenizer import Detokenizer


class RuledOutput(Output):
    """As `Output`. Before `min_tokens` tokens nothing is taken for a stop sequence."""

    __slots__ = ("_count", "_hidden", "_least", "_stop_tokens")

    def __init__(
        self,
        detokenizer: Detokenizer,
        special_ids: frozenset[int],
        eos_ids: frozenset[int],
        options: Options,
    ) -> None:
        super().__init__(detokenizer, frozenset() if options.show_special else special_ids, options)
        rules = options.rules
        self._count = 0
        self._least = rules.min_tokens
        self._stop_tokens = frozenset(rules.stop_token_ids)
        # What ends a text is no part of it, even where special tokens are shown.
        ends = self._stop_tokens if options.ignore_eos else self._stop_tokens | eos_ids
        self._hidden = frozenset() if options.keep_stop else ends

    def push(self, token_id: int) -> str:
        self._count += 1
        if token_id in self._hidden:
            text = self._step(token_id)
            self.released = ""
        elif self._count <= self._least and token_id not in self.special_ids:
            text = self.released = self._step(token_id)
        else:
            text = super().push(token_id)
        if token_id in self._stop_tokens:
            self.stopped, self.stop_reason = True, token_id
        return text
