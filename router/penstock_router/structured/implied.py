"""The type that a schema leaves out and its keywords show.

JSON schema lets `{"properties": …}` without `type` be a number too. Those who write it mean an
object, and other servers make one. A value of the narrower schema is one of the wider, too.
"""

from __future__ import annotations

from typing import Any

_KEYWORDS = {
    "object": ("properties", "patternProperties", "additionalProperties", "required",
               "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
_TYPES = {keyword: name for name, keywords in _KEYWORDS.items() for keyword in keywords}
# Beside one of these a type is given, or may be elsewhere.
_SAYS = frozenset({"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf"})
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_ONE = ("items", "additionalProperties")
_LISTS = ("anyOf", "prefixItems", "items")  # branches of `allOf` are of one value


def with_implied_types(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that is at most some tens of levels deep, with the types that it implies.

    Where `oneOf` stands only the outermost one is added: what matches one branch must not match
    another, so no branch may become narrower.
    """
    return _typed(schema) if _has_one_of(schema) else _all_typed(schema)


def _typed(node: dict[str, Any]) -> dict[str, Any]:
    types = {_TYPES[keyword] for keyword in node if keyword in _TYPES}
    if len(types) != 1 or not _SAYS.isdisjoint(node):
        return node
    return {"type": types.pop(), **node}


def _all_typed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    found = dict(node)
    for keyword in _MAPS:
        if isinstance(schemas := node.get(keyword), dict):
            found[keyword] = {name: _all_typed(schema) for name, schema in schemas.items()}
    for keyword in _ONE:
        if isinstance(node.get(keyword), dict):
            found[keyword] = _all_typed(node[keyword])
    for keyword in _LISTS:
        if isinstance(node.get(keyword), list):
            found[keyword] = [_all_typed(schema) for schema in node[keyword]]
    return _typed(found)


def _has_one_of(node: Any) -> bool:
    if isinstance(node, dict):
        return "oneOf" in node or any(map(_has_one_of, node.values()))
    return isinstance(node, list) and any(map(_has_one_of, node))
