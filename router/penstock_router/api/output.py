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

    __slots__ = ("_held", "_keep_stop", "_matcher", "_step", "_stops", "detokenizer", "released",
                 "special_ids", "stop_reason", "stopped")  # fmt: skip

    def __init__(
        self, detokenizer: Detokenizer, special_ids: frozenset[int], options: Options
    ) -> None:
        self.detokenizer = detokenizer
        self.special_ids = special_ids
        self.released = ""
        self.stopped = False
        self.stop_reason: str | int | None = None  # the stop sequence or token that was found
        self._step = detokenizer.step
        self._stops = options.stop
        self._matcher = StopMatcher(options.stop) if options.stop else None
        self._keep_stop = options.keep_stop
        self._held = ""

    def push(self, token_id: int) -> str:
        """What the token adds to the text, to the end of a stop sequence; the name of a special
        token."""
        text = self._step(token_id)
        if token_id in self.special_ids:
            # A stop sequence may name a special token, but is never partly one.
            self.released = ""
            if text in self._stops:
                self.stopped, self.stop_reason = True, text
        elif self._matcher is None:
            self.released = text
        else:
            return self._scan(text, self._matcher)
        return text

    def skip(self, token_id: int) -> str:
        """A token that is no part of the text. What it adds if it were."""
        self.released = ""
        return self._step(token_id)

    def close(self) -> str:
        """Nothing follows: `released` is what was still to come. Returns what that adds to the last
        token that is text: U+FFFD where it left a character incomplete."""
        text = self.released = "" if self.stopped else self.detokenizer.flush()
        if text and self._matcher is not None:
            text = self._scan(text, self._matcher)
        self.released += self._held
        self._held = ""
        return text

    def _scan(self, text: str, matcher: StopMatcher) -> str:
        """Release what is visible of the text; returns it without what is behind a stop
        sequence."""
        buffer = self._held + text
        end = matcher.feed(text)
        if end is None:
            visible = len(buffer) if self._keep_stop else len(buffer) - matcher.held
        else:
            self.stopped, self.stop_reason = True, matcher.found
            visible = len(self._held) + end - (0 if self._keep_stop else matcher.matched)
        self._held = "" if self.stopped else buffer[visible:]
        self.released = buffer[:visible]
        return text[:end]
