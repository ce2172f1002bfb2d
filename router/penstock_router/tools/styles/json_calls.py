"""Calls whose arguments are JSON."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_router.tools import jsontext
from penstock_router.tools.jsontext import MOST_NAME
from penstock_router.tools.reader import Kept, Literals, Malformed, Reader, Steps
from penstock_router.tools.styles.style import (
    MOST_ARGUMENTS,
    Sink,
    Style,
    read_close,
    read_list,
    read_object,
    require,
)


@dataclass(frozen=True)
class JsonCall(Style):
    """`{"name": "f", "arguments": {...}}`, or in `many` a list of these. keyed: `{"f": {...}}`."""

    name: str = "name"
    arguments: str = "arguments"
    many: bool = False  # what such a model writes; both are read
    keyed: bool = False
    counter: str = ""  # a field with a number, first of all
    close: str = ""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from reader.space()
        first = yield from reader.peek()
        if first == "[":
            yield from read_list(reader, lambda: self._call(reader, sink))
        else:
            yield from self._call(reader, sink)
        yield from read_close(reader, self.close)

    def _call(self, reader: Reader, sink: Sink) -> Steps[None]:
        """Fields in any order; those that say nothing about the call are passed over."""
        if (yield from reader.take()) != "{":
            raise Malformed
        if self.keyed:
            yield from self._key(reader, sink)
            return
        started, early = False, ""
        while True:
            key = yield from jsontext.string(reader)
            yield from reader.space()
            if (yield from reader.take()) != ":":
                raise Malformed
            if key in (self.name, "name", "tool_name", "function") and not started:
                name = yield from jsontext.string(reader)
                sink.start(name)
                started = True
                if early:
                    sink.arguments(early)
            elif key in (self.arguments, "arguments", "parameters"):
                kept = Kept(MOST_ARGUMENTS)
                yield from read_object(reader, sink.arguments if started else kept)
                early = early or kept.text or "{}"
            else:
                yield from jsontext.copy(reader, jsontext.nothing)
            yield from reader.space()
            separator = yield from reader.take()
            if separator == "}":
                break
            if separator != ",":
                raise Malformed
        if not started:
            raise Malformed
        if not early:
            sink.arguments("{}")
        sink.end_of_call()

    def _key(self, reader: Reader, sink: Sink) -> Steps[None]:
        """The only field is the name, with the arguments as its value."""
        name = yield from jsontext.string(reader)
        yield from reader.space()
        if (yield from reader.take()) != ":":
            raise Malformed
        sink.start(name)
        yield from read_object(reader, sink.arguments)
        yield from reader.space()
        if (yield from reader.take()) != "}":
            raise Malformed
        sink.end_of_call()


@dataclass(frozen=True)
class Header(Style):
    """The name, a separator, and the arguments as JSON: `f<sep>{...}<end>`.

    before: what stands before the name (`function<sep>`). lead: what stands between an id and the
    name. counter: what stands between the name and a number; both together are then the id
    (`functions.f:0`).
    """

    before: str = ""
    lead: str = ""
    separator: str = ""
    ident: str = ""  # before an id behind the name, which is passed over
    prefix: str = ""  # of names, not shown
    counter: str = ""
    close: str = ""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        if self.before:
            yield from require(reader, self.before)
        own = ""
        if self.lead:
            own, _ = yield from reader.collect(Literals((self.lead,)), MOST_NAME)
        ends = Literals((self.separator, self.ident))
        head, found = yield from reader.collect(ends, MOST_NAME)
        if self.ident and found == self.ident:
            yield from reader.collect(Literals((self.separator,)), MOST_NAME)
        head = head.strip().partition(" ")[0]
        name = head.removeprefix(self.prefix)
        if self.counter:
            name = name.rpartition(self.counter)[0] or name
        sink.start(name, head if self.counter else own.strip() or None)
        yield from read_object(reader, sink.arguments)
        sink.end_of_call()
        yield from read_close(reader, self.close)
