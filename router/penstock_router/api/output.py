"""The visible text of one sequence."""

from __future__ import annotations

from penstock_router.api.options import Options
from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.stop import StopMatcher


class Output:
    """Text without special tokens, up to the first stop sequence.

    `push` a token, then read `released`: the text that has become visible. Unless the stop
    sequence is kept, text that may be the beginning of one waits until that is decided.
    """

    __slots__ = ("_held", "_keep_stop", "_matcher", "_special", "_step", "_stops", "detokenizer",
                 "released", "stopped")  # fmt: skip

    def __init__(
        self, detokenizer: Detokenizer, special_ids: frozenset[int], options: Options
    ) -> None:
        self.detokenizer = detokenizer
        self.released = ""
        self.stopped = False
        self._step = detokenizer.step
        self._special = special_ids
        self._stops = options.stop
        self._matcher = StopMatcher(options.stop) if options.stop else None
        self._keep_stop = options.keep_stop
        self._held = ""

    def push(self, token_id: int) -> str:
        """The token's own text, special or not."""
        text = self._step(token_id)
        if token_id in self._special:
            # A stop sequence may name a special token, but is never partly one.
            self.released = ""
            self.stopped = text in self._stops
        elif self._matcher is None:
            self.released = text
        else:
            self.released = self._scan(text, self._matcher)
        return text

    def _scan(self, text: str, matcher: StopMatcher) -> str:
        buffer = self._held + text
        end = matcher.feed(text)
        if end is None:
            visible = len(buffer) if self._keep_stop else len(buffer) - matcher.held
        else:
            self.stopped = True
            visible = len(self._held) + end - (0 if self._keep_stop else matcher.matched)
        self._held = "" if self.stopped else buffer[visible:]
        return buffer[:visible]

    def close(self) -> str:
        """What was still held, now that nothing follows."""
        text = "" if self.stopped else self._held + self.detokenizer.flush()
        self._held = ""
        return text
