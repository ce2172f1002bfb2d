"""What is said of a schema that is refused names the place of the keyword."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.places import MOST_PLACES, with_places

LIST = {"type": "array", "uniqueItems": True}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (LIST, "`uniqueItems`"),
        ({"properties": {"a": {"properties": {"b": LIST}}}}, "`properties.a.properties.b.unique"),
        ({"properties": {"uniqueItems": LIST}}, "`properties.uniqueItems.uniqueItems`)"),
        ({"items": {"anyOf": [{}, {"not": {}}]}}, "`items.anyOf[1].not`"),
        ({"properties": {"x": {"if": {}, "then": {}}}}, "`properties.x.if`, `properties.x.then`"),
        ({"$defs": {"d": {"format": "odd"}}, "$ref": "#/$defs/d"}, "`$defs.d.format`"),
        ({"properties": {"x": {"oneOf": [{}, {"type": "null"}]}}}, "`properties.x.oneOf`"),
        ({"properties": {"x": {"type": "blah"}}}, "`properties.x.type`"),
        ({"properties": {"x": {"$ref": "#/nope"}}}, "`properties.x.$ref`"),
        ({"properties": {"x": {"pattern": "(?=a)b", "type": "string"}}}, "`properties.x.pattern`"),
    ],
)
def test_the_library_s_reason_gets_a_place(schema: dict[str, Any], place: str) -> None:
    said = refusal({"type": "object", **schema} if "properties" in schema else schema)
    assert place in said


def refusal(schema: dict[str, Any]) -> str:
    """Why the library refuses it, as a client hears it."""
    grammar = json_schema(schema)
    matcher = LLMatcher(
        LLTokenizer("byte"), LLMatcher.grammar_from_json_schema(grammar.text), log_level=0
    )
    return with_places(matcher.get_error().splitlines()[0], grammar)


def test_what_it_says_in_its_own_words_is_said_in_ours() -> None:
    assert "`anyOf` can (at `oneOf`)" in refusal({"oneOf": [{}, {"type": "null"}]})
    said = with_places("NoExtensionBias", json_schema({"$ref": "#"}))  # by its first mask
    assert said == "it leads to nothing but itself"


def test_many_places_are_counted() -> None:
    schema = {"type": "object", "properties": {f"p{n}": LIST for n in range(10)}}
    said = with_places('Unimplemented keys: ["uniqueItems"]', json_schema(schema))
    assert said.count("uniqueItems") == 1 + MOST_PLACES and said.endswith("and 6 more)")


def test_a_reason_without_keywords_stays() -> None:
    assert with_places("too large", json_schema(LIST)) == "too large"
