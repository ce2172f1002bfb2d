"""Calls that have a tag for the name and one for each argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_router.tools import jsontext
from penstock_router.tools.jsontext import MOST_NAME, escaped
from penstock_router.tools.reader import Kept, Literals, Malformed, Reader, Steps
from penstock_router.tools.styles.style import MOST_VALUE, Sink, Style, require
from penstock_router.tools.values import cast, is_text

_NEWLINE = Literals(("\n",))


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
            yield from require(reader, self.value_open)
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
