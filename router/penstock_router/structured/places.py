"""Where in a schema the keyword stands that it was refused for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.tools.schema import walk

MOST_PLACES = 4  # that a sentence names

Schema = Mapping[str, Any]
Finder = Callable[[str, Schema], Iterator[str]]


def _unimplemented(names: str, node: Schema) -> Iterator[str]:
    yield from (name for name in orjson.loads(names) if name in node)


def _with_value(keyword: str) -> Finder:
    def find(value: str, node: Schema) -> Iterator[str]:
        given = node.get(keyword)
        if value in (given if isinstance(given, list) else [given]):
            yield keyword

    return find


def _with(keyword: str) -> Finder:
    def find(_: str, node: Schema) -> Iterator[str]:
        if keyword in node:
            yield keyword

    return find


def _pointing(pointer: str, node: Schema) -> Iterator[str]:
    if node.get("$ref") in (pointer, f"#{pointer}"):
        yield "$ref"


# What the library says, and how the keyword is found that it says it of.
_SENTENCES: tuple[tuple[re.Pattern[str], Finder], ...] = (
    (re.compile(r"Unimplemented keys: (\[.*\])"), _unimplemented),
    (re.compile(r"Unknown format: (.*)"), _with_value("format")),
    (re.compile(r"Invalid type: (.*)"), _with_value("type")),
    (re.compile(r"(oneOf) constraints"), _with("oneOf")),
    (re.compile(r"Pointer '(.*)' does not exist"), _pointing),
    (re.compile(r"(regex) parse error"), _with("pattern")),
)


# What it says in words of its own, and ours.
_PLAIN: tuple[tuple[str, str], ...] = (
    (
        "oneOf constraints",
        "branches of `oneOf` may overlap, so that it cannot be enforced: `anyOf` can",
    ),
    ("NoExtensionBias", "it leads to nothing but itself"),
)


def with_places(reason: str, grammar: Grammar) -> str:
    """A reason to refuse a grammar, with the places of the keywords that it names."""
    if grammar.kind is not GrammarKind.JSON_SCHEMA:
        return reason
    places = list(dict.fromkeys(_places(reason, orjson.loads(grammar.text))))
    reason = next((plain for said, plain in _PLAIN if reason.startswith(said)), reason)
    if not places:
        return reason
    more = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    shown = ", ".join(f"`{place}`" for place in places[:MOST_PLACES])
    return f"{reason} (at {shown}{more})"


def _places(reason: str, schema: Any) -> Iterator[str]:
    for sentence, find in _SENTENCES:
        if match := sentence.match(reason):
            for _, place, node in walk(schema, ""):
                for keyword in find(match[1], node):
                    yield f"{place}.{keyword}".lstrip(".")
