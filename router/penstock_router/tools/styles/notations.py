"""Calls in a notation that is no JSON: Python's, or Gemma's."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_router.tools import literals
from penstock_router.tools.jsontext import MOST_NAME
from penstock_router.tools.reader import Literals, Reader, Steps
from penstock_router.tools.styles.style import Sink, Style, read_close, read_list


@dataclass(frozen=True)
class Pythonic(Style):
    """`[f(a=1, b="x"), g()]`: read as literals, never evaluated."""

    close: str = ""

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from reader.space()
        yield from read_list(reader, lambda: self._call(reader, sink))
        yield from read_close(reader, self.close)

    def _call(self, reader: Reader, sink: Sink) -> Steps[None]:
        yield from literals.python_call(reader, sink.start, sink.arguments)
        sink.end_of_call()


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
        yield from read_close(reader, self.close)
