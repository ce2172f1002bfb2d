"""Reads one answer: text, reasoning and calls, while it comes."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from typing import Any

from penstock_router.tools import jsontext
from penstock_router.tools.dialect import Dialect
from penstock_router.tools.events import (
    Arguments,
    CallEnded,
    CallStarted,
    Event,
    Reasoning,
    Text,
)
from penstock_router.tools.format import Ids
from penstock_router.tools.reader import Malformed, Reader, Steps

_LETTERS = string.ascii_letters + string.digits


class ReplyParser:
    """Feed it text as an `Alphabet` encodes it, then say that it has ended.

    What is no call after all (an unknown name, no JSON) is text, its markers as they are spelled.
    Whatever the pieces are, the events join to the same.
    """

    def __init__(
        self, dialect: Dialect, tools: Mapping[str, Mapping[str, Any]], *, thinking: bool = False
    ) -> None:
        """tools: schemas of arguments by name; without any no call is looked for. thinking: the
        answer begins within reasoning."""
        self.thinking = thinking
        self._dialect = dialect
        self._tools = tools
        self._shown = dialect.alphabet.shown
        self._reader = Reader()
        self._events: list[Event] = []
        self._index = -1
        self._in_call = False
        self._spoke = False  # text was shown
        self._trim = False  # white space at the beginning of what follows is not shown
        self._space = ""  # white space that is shown if anything follows it
        self._separators = re.compile(rf"[\s{re.escape(dialect.format.separators)}]*")
        self._steps = self._answer()
        next(self._steps, None)

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._index >= 0

    def feed(self, text: str) -> list[Event]:
        """What more text comes to."""
        self._reader.feed(text)
        return self._go_on()

    def end(self) -> list[Event]:
        """Nothing follows: what was still to come."""
        self._reader.ended = True
        events = self._go_on()
        if self._space and not self._trim:
            events.append(Text(self._space))
        return events

    def _go_on(self) -> list[Event]:
        next(self._steps, None)
        events, self._events = self._events, []
        return events

    def _answer(self) -> Steps[None]:
        if self.thinking:
            yield from self._think()
        marks = self._dialect.marks[bool(self._tools)]
        begins = True
        while True:
            if begins and not self._spoke and (yield from self._bare()):
                continue
            found = yield from self._reader.until(marks, self.text)
            if not found:
                return
            begins = yield from self._marker(found)

    def _marker(self, found: str) -> Steps[bool]:
        """Behind a marker. Answers whether an answer may begin there."""
        thoughts = self._dialect.thoughts
        if found in self._dialect.format.opens:
            return (yield from self._call(found))
        if found in thoughts.opens:
            if self._spoke and found[:1] not in self._dialect.alphabet.ids:
                self.text(found)
                return False
            yield from self._think()
        return True

    def _bare(self) -> Steps[bool]:
        """A call without a marker, if one stands here."""
        bare = self._dialect.format.bare
        if not bare or not self._tools:
            return False
        reader = self._reader
        reader.mark()
        yield from reader.stream(self._separators, jsontext.nothing)
        if (yield from reader.peek()) != bare:
            reader.rewind()
            return False
        return (yield from self._read_call())

    def _call(self, marker: str) -> Steps[bool]:
        self._reader.mark()
        is_call = yield from self._read_call()
        if not is_call:
            self.text(marker)
        return is_call

    def _read_call(self) -> Steps[bool]:
        """From behind the mark. Where no call stands there, back to it."""
        before = self._index
        try:
            yield from self._dialect.format.style.read(self._reader, self)
        except Malformed:
            if not self._in_call:
                self._reader.rewind()
                return self._index > before
            if not self._reader.ended:
                self.end_call()
        self._reader.forget()
        self._in_call = False
        return True

    def _think(self) -> Steps[None]:
        """Up to what ends it; a tag that opens it once more is passed over."""
        self.thinking = True
        dialect, reader = self._dialect, self._reader
        yield from reader.space()
        yield from reader.literal(dialect.thought_opens)
        self._trim, self._space = True, ""
        found = yield from reader.until(dialect.thought_ends[bool(self._tools)], self.reasoning)
        self.thinking = False
        self._trim, self._space = True, ""
        if found in dialect.format.opens:
            yield from self._call(found)

    # What styles say (`styles.Sink`).

    def start(self, name: str, call_id: str | None = None) -> Mapping[str, Any]:
        if name not in self._tools:
            raise Malformed
        self._reader.forget()
        self._in_call = True
        self._index += 1
        self._space = ""
        self._events.append(CallStarted(self._index, self._id(name, call_id), name))
        return self._tools[name]

    def arguments(self, piece: str) -> None:
        if shown := self._shown(piece):
            self._events.append(Arguments(self._index, shown))

    def end_call(self) -> None:
        self._in_call = False
        self._trim = True
        self._events.append(CallEnded(self._index))

    def end_of_call(self) -> None:
        self.end_call()
        self._reader.mark()  # what follows in a list may be no call

    def text(self, piece: str) -> None:
        piece = self._without_space(piece)
        if piece:
            self._spoke = True
            self._events.append(Text(piece))

    def reasoning(self, piece: str) -> None:
        if piece := self._without_space(piece):
            self._events.append(Reasoning(piece))

    def _without_space(self, piece: str) -> str:
        """What is shown of it now: white space waits for what follows."""
        piece = self._shown(piece)
        if self._trim:
            piece = piece.lstrip()
            if not piece:
                return ""
            self._trim = False
        piece = self._space + piece
        shown = piece.rstrip()
        self._space = piece[len(shown) :]
        return shown

    def _id(self, name: str, own: str | None) -> str:
        match self._dialect.format.ids:
            case Ids.SHORT:
                return "".join(secrets.choice(_LETTERS) for _ in range(9))
            case Ids.OWN:
                return own if own and own != name else f"functions.{name}:{self._index}"
        return f"call_{secrets.token_hex(12)}"
