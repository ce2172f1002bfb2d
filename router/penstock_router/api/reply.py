"""The output of a sequence that is read: text, reasoning and calls."""

from __future__ import annotations

from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.stop import StopMatcher
from penstock_router.tools.events import Event, Reasoning, Text
from penstock_router.tools.parser import ReplyParser


class ReplyOutput(Output):
    """`push` a token, then read `events`, and `released`: the text among them.

    Stop sequences are looked for in the text alone: what the model thinks or calls does not end
    the answer.
    """

    __slots__ = ("_characters", "_parser", "events", "reasoning_tokens")

    def __init__(
        self,
        detokenizer: Detokenizer,
        special_ids: frozenset[int],
        options: Options,
        parser: ReplyParser,
        characters: dict[int, str],
    ) -> None:
        """characters: of tokens that are markers, as an `Alphabet` has them."""
        super().__init__(detokenizer, special_ids, options)
        self.events: list[Event] = []
        self.reasoning_tokens = 0
        self._parser = parser
        self._characters = characters

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._parser.called

    def push(self, token_id: int) -> str:
        marker = self._characters.get(token_id)
        before = ""
        if marker is not None and self.detokenizer.pending:
            before = self.detokenizer.flush()
        text = self._step(token_id)
        if self._parser.thinking:
            self.reasoning_tokens += 1
        if marker is not None:
            self._take(self._parser.feed(before + marker))
        elif token_id not in self.special_ids:
            self._take(self._parser.feed(text) if text else [])
        else:
            self._take([])
            # A stop sequence may name a special token, but is never partly one.
            if text in self._stops:
                self.stopped, self.stop_reason = True, text
        return before + text

    def skip(self, token_id: int) -> str:
        self._take([])
        return super().skip(token_id)

    def close(self) -> str:
        if self.stopped:
            self._take([])
            return ""
        text = self.detokenizer.flush()
        self._take([*self._parser.feed(text), *self._parser.end()])
        self._release()
        return text

    def _take(self, events: list[Event]) -> None:
        """What is shown of new events: text, up to a stop sequence."""
        if self._matcher is None:
            self.events = events
        else:
            self.events = []
            for event in events:
                self._look(event, self._matcher)
                if self.stopped:
                    break
        self.released = "".join(event.text for event in self.events if isinstance(event, Text))

    def _look(self, event: Event, matcher: StopMatcher) -> None:
        if isinstance(event, Text):
            self._scan(event.text, matcher)
            if self.released:
                self.events.append(Text(self.released))
            return
        if not isinstance(event, Reasoning):
            self._release()
        self.events.append(event)

    def _release(self) -> None:
        """No stop sequence goes on where the text does not."""
        if self._held:
            self.events.append(Text(self._held))
            self.released += self._held
            self._held = ""
            self._matcher = StopMatcher(self._stops)
