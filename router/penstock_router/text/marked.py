"""A rendered conversation that remembers which of its characters the client wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MarkedText:
    """What a chat template made of a conversation.

    client: start and stop of each run of characters that came from the client, ascending, neither
    empty nor touching. Everything else was written by the template, so only there can a control
    token stand.
    """

    text: str
    client: tuple[tuple[int, int], ...] = ()

    def followed_by(self, text: str) -> MarkedText:
        """The same with a client's text behind it."""
        if not text:
            return self
        end = len(self.text)
        *before, last = self.client or ((end, end),)
        run = (last[0] if last[1] == end else end, end + len(text))
        runs = (*before, run) if last[1] == end else (*before, last, run)
        return MarkedText(self.text + text, runs)
