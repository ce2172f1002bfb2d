"""Calls as elements within elements: MiniMax M3's, with a mark before each tag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_router.tools.jsontext import MOST_DEPTH, MOST_NAME, Show, escaped
from penstock_router.tools.reader import Literals, Malformed, Reader, Steps
from penstock_router.tools.styles.style import MOST_VALUE, Sink, Style
from penstock_router.tools.values import cast, described, is_text, property_schema, types

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Elements(Style):
    """`f"><k>v</k><l><item>1</item></l></invoke>`: objects and lists are elements again, all other
    values are text, which the schema tells apart."""

    mark: str = ""  # before each tag
    name_end: str = ""
    item: str = "item"  # of lists
    close: str = ""

    @property
    def opens(self) -> str:
        """What begins an element."""
        return f"{self.mark}<"

    def end(self, key: str) -> str:
        """What closes one."""
        return f"{self.mark}</{key}>"

    def read(self, reader: Reader, sink: Sink) -> Steps[None]:
        name, _ = yield from reader.collect(Literals((self.name_end,)), MOST_NAME)
        schema = sink.start(name.strip())
        marks, count = Literals((self.opens, self.close)), 0
        while True:
            yield from reader.space()
            found = yield from reader.literal(marks)
            if found != self.opens:
                break
            key = yield from self._key(reader)
            sink.arguments(f"{', ' if count else '{'}{_quoted(key)}: ")
            count += 1
            node = property_schema(schema, key)
            yield from self._value(reader, sink.arguments, schema, node, key, 0)
        sink.arguments("}" if count else "{}")
        sink.end_of_call()
        if found != self.close:
            raise Malformed

    def _key(self, reader: Reader) -> Steps[str]:
        key, _ = yield from reader.collect(Literals((">",)), MOST_NAME)
        return key

    def _value(
        self, reader: Reader, show: Show, root: Schema, node: Any, key: str, depth: int
    ) -> Steps[None]:
        """Up to and with what closes it."""
        end, kinds = self.end(key), types(root, node)
        found = yield from reader.literal(Literals((end, self.opens)))
        if found == end:
            empty = {"string": '""', "array": "[]", "object": "{}"}
            show(next((text for kind, text in empty.items() if kind in kinds), '""'))
        elif found:
            yield from self._inner(reader, show, root, node, key, depth)
        elif is_text({"properties": {key: node}, **_definitions(root)}, key):
            show('"')
            if not (yield from reader.until(Literals((end,)), lambda text: show(escaped(text)))):
                raise Malformed
            show('"')
        else:
            text, _ = yield from reader.collect(Literals((end,)), MOST_VALUE)
            show(cast({"properties": {key: node}, **_definitions(root)}, key, text))

    def _inner(
        self, reader: Reader, show: Show, root: Schema, node: Any, key: str, depth: int
    ) -> Steps[None]:
        """Behind what begins the first element within a value."""
        if depth > MOST_DEPTH:
            raise Malformed
        marks = Literals((self.end(key), self.opens))
        inner = yield from self._key(reader)
        listed = inner == self.item and "array" in types(root, node)
        node = described(root, node, "array" if listed else "object")
        show("[" if listed else "{")
        while True:
            if not listed:
                show(f"{_quoted(inner)}: ")
            part = node.get("items", {}) if listed else property_schema(node, inner)
            yield from self._value(reader, show, root, part, inner, depth + 1)
            yield from reader.space()
            found = yield from reader.literal(marks)
            if found != self.opens:
                break
            show(", ")
            inner = yield from self._key(reader)
        if not found:
            raise Malformed
        show("]" if listed else "}")


def _definitions(root: Schema) -> dict[str, Any]:
    return {name: root[name] for name in ("$defs", "definitions") if name in root}


def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)
