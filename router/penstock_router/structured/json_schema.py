"""JSON schemas: bounded before anybody compiles them, and with white space that ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.structured.meant import as_meant
from penstock_router.structured.meant import closed as all_closed

MAX_BYTES = 65_536
MAX_DEPTH = 64  # levels of arrays and objects in the schema's own text
# 5,000 took four seconds to compile, and then more than matching allows.
MAX_PROPERTIES = 1024
MAX_OBJECTS = 3 * MAX_PROPERTIES  # each is looked at in some 40 us of Python
MAX_ENUM = 4096  # values of all enumerations

# Between two parts: blanks, or a new line and what it is indented by.
WHITE_SPACE = r"[ ]{1,2}|\r?\n[ \t]{0,40}"
ANY_OBJECT = orjson.dumps(
    {"type": "object", "x-guidance": {"whitespace_pattern": WHITE_SPACE}}
).decode()
MOST_REPEATS = 64  # of white space where a client's own pattern has no bound
_QUANTIFIER = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|([*+]|\{(\d+),\})")


def json_schema(
    value: object,
    *,
    white_space: str | None = None,
    compact: bool = False,
    closed: bool = False,
) -> Grammar:
    """A schema as an object or as its text.

    white_space: a regular expression of what may stand between two parts. compact: none but a blank
    behind colons and commas. closed: objects take no properties that they do not name.
    Raises ValueError with the end of a sentence that begins with the field's name.
    """
    schema = _loaded(value)
    _check(schema)
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    schema = as_meant(schema)
    if closed:
        schema = all_closed(schema)
    schema = {**schema, "x-guidance": _style(white_space, compact)}
    return Grammar(GrammarKind.JSON_SCHEMA, orjson.dumps(schema).decode())


def _style(white_space: str | None, compact: bool) -> dict[str, Any]:
    if compact:
        separators = {"key_separator": ": ", "item_separator": ", "}
        return {"whitespace_flexible": False, **separators}
    return {"whitespace_pattern": WHITE_SPACE if white_space is None else bounded(white_space)}


def bounded(pattern: str) -> str:
    """A client's pattern of white space, with repeats that end: a part of what it allows."""

    def bound(match: re.Match[str]) -> str:
        quantifier, least = match[1], match[2]
        if quantifier is None:
            return match[0]
        low = int(least) if least else int(quantifier == "+")
        return f"{{{low},{max(low, MOST_REPEATS)}}}"

    if len(pattern) > 256:
        raise ValueError(f"must have at most 256 characters. Given: {len(pattern)}")
    return _QUANTIFIER.sub(bound, pattern)


def _loaded(value: object) -> dict[str, Any] | bool:
    """The schema as a tree. Raises ValueError."""
    try:
        text = value.encode() if isinstance(value, str) else orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON schema: {error}") from None
    if len(text) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_BYTES} bytes. Given: {len(text)}")
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"must be a JSON schema: {error}") from None
    if not isinstance(schema, dict | bool):
        raise ValueError("must be a JSON schema: an object")
    return schema


def _check(schema: object) -> None:
    """Raises ValueError for one that is too large, or that says what would not be enforced."""
    objects = properties = values = 0
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        objects += sum(isinstance(node, dict) for node in level)
        if objects > MAX_OBJECTS:
            raise ValueError(f"must have at most {MAX_OBJECTS} objects in all")
        for node in level:
            if isinstance(node, dict):
                if node.get("nullable") is True:
                    raise ValueError(
                        "has the keyword `nullable`, which JSON schemas do not know: write "
                        '`"type": ["string", "null"]`, or `anyOf`'
                    )
                properties += _size(node, "properties") + _size(node, "patternProperties")
                values += _size(node, "enum")
        if properties > MAX_PROPERTIES:
            raise ValueError(f"must have at most {MAX_PROPERTIES} properties in all")
        if values > MAX_ENUM:
            raise ValueError(f"must have at most {MAX_ENUM} values in `enum` in all")
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError(f"must be nested at most {MAX_DEPTH} levels deep")


def _size(node: dict[str, Any], keyword: str) -> int:
    found = node.get(keyword)
    return len(found) if isinstance(found, dict | list) else 0


def _children(node: object) -> Iterator[object]:
    found = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (child for child in found if isinstance(child, dict | list))
