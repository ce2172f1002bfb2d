"""What a style of tool calls is: how formats that are alike write a call.

A style reads a call from behind the marker that opens it, up to its last character. It says what
it reads to a sink. What a style is given are strings as an `Alphabet` has encoded them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

from penstock_router.tools import jsontext
from penstock_router.tools.reader import Kept, Literals, Malformed, Reader, Steps

MOST_VALUE = 1 << 20  # characters of a value that is cast when it is complete
MOST_ARGUMENTS = 1 << 20  # of arguments that stand before the name


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


def read_object(reader: Reader, show: Callable[[str], None]) -> Steps[None]:
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


def require(reader: Reader, literal: str) -> Steps[None]:
    if not (yield from reader.literal(Literals((literal,)))):
        raise Malformed


def read_close(reader: Reader, literal: str) -> Steps[None]:
    """What closes a call may be missing, as where the sequence ended before it."""
    if literal:
        yield from reader.space()
        yield from reader.literal(Literals((literal.lstrip(),)))


def read_list(reader: Reader, item: Callable[[], Steps[None]]) -> Steps[None]:
    """`[`, items with commas between them, maybe one behind the last, and `]`."""
    if (yield from reader.take()) != "[":
        raise Malformed
    while True:
        yield from reader.space()
        if (yield from reader.peek()) == "]":
            break
        yield from item()
        yield from reader.space()
        if (yield from reader.peek()) != ",":
            break
        yield from reader.take()
    if (yield from reader.take()) != "]":
        raise Malformed
