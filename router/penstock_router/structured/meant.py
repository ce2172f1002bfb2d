"""What a schema leaves out, as those who write schemas mean it.

JSON schema lets `{"properties": …}` without `type` be a number too, and an object have properties
that nobody named. TGI, vLLM and SGLang make objects of it, with the named properties alone. A value
of the narrower schema is one of the wider, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_ONE = ("items", "additionalProperties")
_LISTS = ("anyOf", "prefixItems", "items")  # branches of `allOf` are of one value


def as_meant(schema: Schema) -> Schema:
    """A schema that is at most some tens of levels deep, with the types that it implies and its
    objects closed.

    Where `oneOf` stands only the outermost type is added: what matches one branch must not match
    another, so no branch may become narrower. Objects stay open where two places of the schema say
    what one of them holds.
    """
    if _has_one_of(schema):
        return _typed(schema)
    typed: Schema = _everywhere(schema, _typed)
    closed: Schema = _everywhere(typed, _closed) if _is_said_once(typed) else typed
    return closed


def _typed(node: Schema) -> Schema:
    types = {_TYPES[keyword] for keyword in node if keyword in _TYPES}
    if len(types) != 1 or not _SAYS.isdisjoint(node):
        return node
    return {"type": types.pop(), **node}


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


def _everywhere(node: Any, change: Callable[[Schema], Schema]) -> Any:
    """With every schema in it changed, the inner ones first."""
    if not isinstance(node, dict):
        return node
    found = dict(node)
    for keyword in _MAPS:
        if isinstance(schemas := node.get(keyword), dict):
            found[keyword] = {name: _everywhere(one, change) for name, one in schemas.items()}
    for keyword in _ONE:
        if isinstance(node.get(keyword), dict):
            found[keyword] = _everywhere(node[keyword], change)
    for keyword in _LISTS:
        if isinstance(node.get(keyword), list):
            found[keyword] = [_everywhere(one, change) for one in node[keyword]]
    return change(found)


def _has_one_of(node: Any) -> bool:
    if isinstance(node, dict):
        return "oneOf" in node or any(map(_has_one_of, node.values()))
    return isinstance(node, list) and any(map(_has_one_of, node))


def _is_said_once(node: Any) -> bool:
    """Whether all that is said of an object stands in one schema."""
    if isinstance(node, list):
        return all(map(_is_said_once, node))
    if not isinstance(node, dict):
        return True
    elsewhere = [keyword for keyword in ("$ref", "anyOf") if keyword in node]
    if "allOf" in node or len(elsewhere) + (not _OF_OBJECTS.isdisjoint(node)) > 1:
        return False
    return all(map(_is_said_once, node.values()))
