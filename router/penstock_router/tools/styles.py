"""How formats write a call: some argument styles, each with what differs between formats.

A style reads a call from behind the marker that opens it, up to its last character. It says what
it reads to a sink. What a style is given are strings as an `Alphabet` has encoded them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

from penstock_router.tools import jsontext, literals
from penstock_router.tools.jsontext import MOST_NAME, escaped
from penstock_router.tools.reader import Kept, Literals, Malformed, Reader, Steps
from penstock_router.tools.values import cast, is_text

MOST_VALUE = 1 << 20  # characters of a value that is cast when it is complete
MOST_ARGUMENTS = 1 << 20  # of arguments that stand before the name
_NEWLINE = Literals(("\n",))


class Sink(Protocol):
    """Hears what a style reads."""

    def start(self, name: str, call_id: str | None = None) -> Mapping[str, Any]:
        """A call begins; answers with the schema of its arguments. Raises Malformed for a name
        that is no tool's."""

    def arguments(self, piece: str) -> None:
        """A piece of its arguments, as JSON."""

    def end_of_call(self) -> None:
        """The call is complete."""

    def text(self, piece: str) -> None:
        """A piece of the answer."""

    def reasoning(self, piece: str) -> None:
        """A piece of what the model thinks."""


@dataclass(frozen=True)
class Style:
    """Base of all styles."""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        """One call, or several where the style holds a list. Raises Malformed."""
        raise NotImplementedError

    def encoded(self, encode: Callable[[str], str]) -> Self:
        """The same with its strings encoded."""
        texts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: encode(t) for n, t in texts.items() if isinstance(t, str)})

    @property
    def strings(self) -> list[str]:
        """Those that may hold markers."""
        values = (getattr(self, f.name) for f in fields(self))
        return [value for value in values if isinstance(value, str)]


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
            yield from self._list(reader, sink)
        else:
            yield from self._call(reader, sink)
        yield from _close(reader, self.close)

    def _list(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from reader.take()
        while True:
            yield from reader.space()
            if (yield from reader.peek()) == "]":
                break
            yield from self._call(reader, sink)
            yield from reader.space()
            if (yield from reader.peek()) != ",":
                break
            yield from reader.take()
        if (yield from reader.take()) != "]":
            raise Malformed

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
                yield from _object(reader, sink.arguments if started else kept)
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
        yield from _object(reader, sink.arguments)
        yield from reader.space()
        if (yield from reader.take()) != "}":
            raise Malformed
        sink.end_of_call()


def _object(reader: Reader, show: Callable[[str], None]) -> Steps[None]:
    """Arguments: an object, nothing, or either within a string."""
    yield from reader.space()
    first = yield from reader.peek()
    if first == "{":
        yield from jsontext.copy(reader, show)
        return
    if first == '"':
        inner = yield from jsontext.string(reader, MOST_ARGUMENTS)
    else:
        kept = Kept(8)
        yield from jsontext.copy(reader, kept)
        inner = "" if kept.text == "null" else kept.text
    try:
        value = json.loads(inner or "{}")
    except (ValueError, RecursionError):
        raise Malformed from None
    if not isinstance(value, dict):
        raise Malformed
    show(json.dumps(value, ensure_ascii=False))


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
            yield from _require(reader, self.before)
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
        yield from _object(reader, sink.arguments)
        sink.end_of_call()
        yield from _close(reader, self.close)


@dataclass(frozen=True)
class Tagged(Style):
    """A tag for the name and one for each argument, whose values are text.

    A value is text where the schema says string, else JSON; or as an attribute of its tag says
    (`attribute`: what stands before it; `raw`: its value for text).
    """

    name_end: str = ""
    head_end: str = ""  # behind a number that follows the name
    key_open: str = ""
    key_end: str = ""
    attribute: str = ""
    attribute_end: str = ""
    raw: str = ""
    other: str = ""  # its value for anything else
    value_open: str = ""
    value_end: str = ""
    close: str = ""  # of the call
    padded: bool = False  # a value stands between two newlines of its tags
    line: str = ""  # between tags, as such a model writes them

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        marks = Literals((self.key_open, self.close))
        heads = Literals((self.name_end, self.key_open, self.close))
        name, mark = yield from reader.collect(heads, MOST_NAME)
        if self.head_end:
            yield from reader.collect(Literals((self.head_end,)), MOST_NAME)
        schema = sink.start(name.strip())
        count = 0
        while True:
            if mark not in (self.key_open, self.close):
                yield from reader.space()
                mark = yield from reader.literal(marks)
            if mark != self.key_open:
                break
            mark = ""
            sink.arguments(", " if count else "{")
            count += 1
            yield from self._argument(reader, sink, schema)
        sink.arguments("}" if count else "{}")
        sink.end_of_call()
        if mark != self.close:
            raise Malformed

    def _argument(self, reader: Reader, sink: Sink, schema: Mapping[str, Any]) -> Steps[None]:
        ends = Literals((self.attribute or self.key_end,))
        key, _ = yield from reader.collect(ends, MOST_NAME)
        key = key.strip()
        text: bool | None = None
        if self.attribute:
            kind, _ = yield from reader.collect(Literals((self.attribute_end,)), MOST_NAME)
            text = kind == self.raw
        if self.value_open:
            yield from reader.space()
            yield from _require(reader, self.value_open)
        if self.padded:
            yield from reader.literal(_NEWLINE)
        closes = Literals((self.value_end, *(("\n" + self.value_end,) if self.padded else ())))
        sink.arguments(json.dumps(key, ensure_ascii=False) + ": ")
        if is_text(schema, key) if text is None else text:
            sink.arguments('"')
            found = yield from reader.until(closes, lambda piece: sink.arguments(escaped(piece)))
            if not found:
                raise Malformed
            sink.arguments('"')
        elif not (yield from self._json(reader, sink, closes, schema, key)):
            value, _ = yield from reader.collect(closes, MOST_VALUE)
            sink.arguments(cast(schema, key, value, as_json=text is False))

    def _json(
        self, reader: Reader, sink: Sink, closes: Literals, schema: Mapping[str, Any], key: str
    ) -> Steps[bool]:
        """A list or an object, in whose strings the closing tag may stand. False, and nothing is
        read, where there is none."""
        reader.mark()
        kept = Kept(MOST_VALUE)
        try:
            yield from reader.space()
            if (yield from reader.peek()) in ("[", "{"):
                yield from jsontext.copy(reader, kept)
                if (yield from reader.literal(closes)):
                    reader.forget()
                    sink.arguments(cast(schema, key, kept.text))
                    return True
        except Malformed:
            pass
        reader.rewind()
        return False


@dataclass(frozen=True)
class Pythonic(Style):
    """`[f(a=1, b="x"), g()]`: read as literals, never evaluated."""

    close: str = ""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from reader.space()
        if (yield from reader.take()) != "[":
            raise Malformed
        while True:
            yield from reader.space()
            if (yield from reader.peek()) == "]":
                break
            yield from literals.python_call(reader, sink.start, sink.arguments)
            sink.end_of_call()
            yield from reader.space()
            if (yield from reader.peek()) != ",":
                break
            yield from reader.take()
        if (yield from reader.take()) != "]":
            raise Malformed
        yield from _close(reader, self.close)


@dataclass(frozen=True)
class Unquoted(Style):
    """`call:f{k:<d>text<d>,n:42}`: keys without quotes, strings between delimiters."""

    before: str = ""
    delimiter: str = ""
    close: str = ""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from reader.space()
        yield from reader.literal(Literals((self.before,)))
        name = yield from reader.run(literals.NAME, MOST_NAME)
        sink.start(name)
        notation = literals.Notation(Literals((self.delimiter,)))
        yield from notation.object(reader, sink.arguments)
        sink.end_of_call()
        yield from _close(reader, self.close)


_RECIPIENT = re.compile(r"(?:^|to=)functions\.([A-Za-z0-9_.-]+)")


@dataclass(frozen=True)
class Channels(Style):
    """Harmony: every message says in its header what it is. Opens with what begins a header."""

    message: str = ""
    call: str = ""  # between the name and `message`
    ends: tuple[str, ...] = ()
    reasoning: str = "analysis"

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        header, _ = yield from reader.collect(Literals((self.message,)), MOST_NAME)
        ends = Literals(self.ends)
        recipient = _RECIPIENT.search(header)
        if recipient is not None:
            sink.start(recipient[1])
            yield from _object(reader, sink.arguments)
            sink.end_of_call()
            yield from reader.until(ends, jsontext.nothing)
        else:
            show = sink.reasoning if self.reasoning in header else sink.text
            yield from reader.until(ends, show)

    def encoded(self, encode: Callable[[str], str]) -> Self:
        return replace(super().encoded(encode), ends=tuple(map(encode, self.ends)))

    @property
    def strings(self) -> list[str]:
        return [*super().strings, *self.ends]


def _require(reader: Reader, literal: str) -> Steps[None]:
    if not (yield from reader.literal(Literals((literal,)))):
        raise Malformed


def _close(reader: Reader, literal: str) -> Steps[None]:
    """What closes a call may be missing, as where the sequence ended before it."""
    if literal:
        yield from reader.space()
        yield from reader.literal(Literals((literal.lstrip(),)))
