"""Values that a format writes as plain text: which are strings, and what the others are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from penstock_router.tools.schema import TYPES, resolve

MOST_STEPS = 32  # through references and choices
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_KINDS: Mapping[type, frozenset[str]] = {
    str: frozenset({"string"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    float: frozenset({"number"}),
    type(None): frozenset({"null"}),
    dict: frozenset({"object"}),
    list: frozenset({"array"}),
}


def property_schema(schema: Mapping[str, Any], key: str) -> Any:
    """What a schema says about one argument."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and key in properties:
        return properties[key]
    return schema.get("additionalProperties", {})


def types(schema: Mapping[str, Any], node: Any) -> frozenset[str]:
    """Types that a value may have; all where nothing is said. schema: where references lead."""
    found: set[str] = set()
    waiting = [node]
    for _ in range(MOST_STEPS):
        if not waiting:
            break
        node = waiting.pop()
        if not isinstance(node, dict):
            return frozenset(TYPES)
        kinds = node.get("type")
        choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        if isinstance(kinds, str | list):
            found |= {kinds} if isinstance(kinds, str) else set(kinds)
        elif "enum" in node or "const" in node:
            for value in node.get("enum", [node.get("const")]):
                found |= _KINDS[type(value)]
        elif "$ref" in node:
            waiting.append(resolve(schema, node["$ref"]))
        elif choices or node.get("allOf"):
            waiting += choices or node["allOf"][:1]
        else:
            return frozenset(TYPES)
    return frozenset(found)


def described(schema: Mapping[str, Any], node: Any, kind: str) -> Mapping[str, Any]:
    """The part of a schema that says what its values of a type are; nothing where none does."""
    for _ in range(MOST_STEPS):
        if not isinstance(node, dict):
            return {}
        if "$ref" in node:
            node = resolve(schema, node["$ref"])
            continue
        choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        fitting = [one for one in choices if kind in types(schema, one)]
        if not fitting:
            return node
        node = fitting[0]
    return {}


def is_text(schema: Mapping[str, Any], key: str) -> bool:
    """Whether an argument can be shown as a string before its end is known."""
    kinds = types(schema, property_schema(schema, key))
    return "string" in kinds and ("null" not in kinds or kinds == frozenset(TYPES))


def cast(schema: Mapping[str, Any], key: str, text: str, as_json: bool = False) -> str:
    """The JSON of an argument. Numbers stay as they are written; what is no value of a type that
    the schema allows is a string.

    as_json: the model has said that it is JSON.
    """
    kinds = types(schema, property_schema(schema, key))
    word = text.strip()
    if word in ("None", "null") and ("null" in kinds or as_json):
        return "null"
    if "string" in kinds and not as_json:
        return json.dumps(text, ensure_ascii=False)
    if word in ("True", "False") and "boolean" in kinds:
        return word.lower()
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    own = _KINDS[int if isinstance(value, float) and value.is_integer() else type(value)]
    if not as_json and not own & kinds:
        return json.dumps(text, ensure_ascii=False)
    return word if _NUMBER.fullmatch(word) else json.dumps(value, ensure_ascii=False)
