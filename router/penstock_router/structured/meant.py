"""What a schema leaves out, as those who write schemas mean it.

JSON schema lets `{"properties": …}` without `type` be a number too, and an object have properties
that nobody named. TGI, vLLM and SGLang make objects of it, with the named properties alone; a model
would go on with names of its own. A value of the narrower schema is one of the wider, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from penstock_router.tools.schema import ANY_TEXT, resolve

Schema = dict[str, Any]

_KEYWORDS = {
    "object": ("properties", "patternProperties", "additionalProperties", "required",
               "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
_TYPES = {keyword: name for name, keywords in _KEYWORDS.items() for keyword in keywords}
_OF_OBJECTS = frozenset(_KEYWORDS["object"])
# Beside one of these a type is given, or may be elsewhere.
_SAYS = frozenset({"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf"})
_OTHERS = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties"})
_VALUES = frozenset({"enum", "const", "default", "examples"})  # hold no schemas
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_PARTS = ("items", "prefixItems", "additionalProperties")
_BRANCHES = ("allOf", "anyOf", "oneOf")  # say more of the same value


class _Place(enum.IntEnum):
    """How a schema may be narrowed, by where it stands. The highest of its places counts."""

    ALONE = 0  # all that is said of its values stands here: with a type, and closed
    BESIDE = 1  # another schema speaks of the same values, and may name what this one does not
    EXACT = 2  # in `oneOf`, where what matches one branch must not match another; and in `allOf`


def as_meant(schema: Mapping[str, Any]) -> Schema:
    """A schema that is at most some tens of levels deep, with the types that it implies, its
    objects closed where they can be, and without formats that any string has."""
    places = _places(schema)

    def made(node: Any) -> Any:
        found = _with_inner(node, made)
        match places.get(id(node), _Place.EXACT):
            case _Place.ALONE:
                return _plain(_closed(_typed(found)))
            case _Place.BESIDE:
                return _plain(_typed(found))
        return _plain(found)

    narrowed: Schema = made(schema)
    return narrowed


def closed(node: Any) -> Any:
    """With every object closed that names properties and does not say, as a client asked."""
    found = _with_inner(node, closed)
    if isinstance(found, dict) and isinstance(found.get("properties"), dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found


def _with_inner(node: Any, change: Callable[[Any], Any]) -> Any:
    """A copy in which all schemas within are changed, and what may be some."""
    if isinstance(node, list):
        return [change(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for keyword, part in node.items():
        if keyword in _MAPS and isinstance(part, dict):
            part = {name: change(one) for name, one in part.items()}
        elif keyword not in _VALUES:
            part = change(part)
        found[keyword] = part
    return found


def _places(root: Mapping[str, Any]) -> dict[int, _Place]:
    """Of every schema in it, by its identity."""
    found: dict[int, _Place] = {}
    waiting: list[tuple[Any, _Place]] = [(root, _Place.ALONE)]
    while waiting:
        node, place = waiting.pop()
        if not isinstance(node, dict):
            continue
        if place is _Place.ALONE and _speakers(node) > 1:
            place = _Place.BESIDE
        if found.get(id(node), -1) < place:
            found[id(node)] = place
            waiting += _inner(root, node, place)
    return found


def _speakers(node: Schema) -> int:
    """How many schemas say what an object of this one holds."""
    branches = node.get("allOf")
    of_all = len(branches) if isinstance(branches, list) else 0
    elsewhere = sum(keyword in node for keyword in ("$ref", "anyOf", "oneOf"))
    return of_all + elsewhere + (not _OF_OBJECTS.isdisjoint(node))


def _inner(root: Mapping[str, Any], node: Schema, place: _Place) -> Iterator[tuple[Any, _Place]]:
    for keyword in _MAPS:
        if isinstance(schemas := node.get(keyword), dict):
            # a definition stands where it is referred to
            own = _Place.ALONE if keyword in ("$defs", "definitions") else place
            yield from ((one, own) for one in schemas.values())
    for keyword in (*_PARTS, *_BRANCHES):
        part = node.get(keyword)
        exact = keyword == "oneOf" or (keyword == "allOf" and place is not _Place.ALONE)
        for one in part if isinstance(part, list) else [part]:
            yield one, _Place.EXACT if exact else place
    if isinstance(reference := node.get("$ref"), str):
        yield resolve(root, reference), place


def _typed(node: Schema) -> Schema:
    types = {_TYPES[keyword] for keyword in node if keyword in _TYPES}
    if len(types) != 1 or not _SAYS.isdisjoint(node):
        return node
    return {"type": types.pop(), **node}


def _plain(node: Any) -> Any:
    if not isinstance(node, dict) or str(node.get("format")) not in ANY_TEXT:
        return node
    return {keyword: value for keyword, value in node.items() if keyword != "format"}


def _closed(node: Schema) -> Schema:
    """Without properties that it does not name, if it can do without."""
    named, required, least = (node.get(k) for k in ("properties", "required", "minProperties"))
    if not isinstance(named, dict) or not _OTHERS.isdisjoint(node):
        return node
    has_required = isinstance(required, list) and all(
        isinstance(name, str) and name in named for name in required
    )
    has_least = isinstance(least, int) and least <= len(named)
    if (required is None or has_required) and (least is None or has_least):
        return {**node, "additionalProperties": False}
    return node
