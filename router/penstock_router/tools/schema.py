"""The JSON schema of a tool's parameters: what is wrong with it, and what of it can be enforced.

Which keywords the grammar library enforces was tried with llguidance 1.9; see
`tests/router/test_refused_keywords.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from penstock_router.tools.patterns import MAX_PATTERN, is_pattern

MAX_DEPTH = 24
MAX_NODES = 4096  # schemas, lists and values of one tool
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

Schema = Mapping[str, Any]


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


# keyword: what it must be, and how that is said
RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"must be one of {', '.join(TYPES)}, or a list of these"),
    "properties": (_is_map, "must map names to schemas"),
    "patternProperties": (_is_map, "must map patterns to schemas"),
    "$defs": (_is_map, "must map names to schemas"),
    "definitions": (_is_map, "must map names to schemas"),
    "required": (_is_names, "must be a list of names"),
    "additionalProperties": (_is_schema, "must be a schema"),
    "items": (lambda value: _is_schema(value) or _is_schemas(value), "must be a schema"),
    "prefixItems": (_is_schemas, "must be a list of schemas"),
    "anyOf": (_is_schemas, "must be a list of schemas"),
    "oneOf": (_is_schemas, "must be a list of schemas"),
    "allOf": (_is_schemas, "must be a list of schemas"),
    "not": (_is_schema, "must be a schema"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "must be a list of values"),
    "pattern": (is_pattern, f"must be a regular expression of at most {MAX_PATTERN} characters"),
    "minLength": (_is_count, "must be a number >= 0"),
    "maxLength": (_is_count, "must be a number >= 0"),
    "minItems": (_is_count, "must be a number >= 0"),
    "maxItems": (_is_count, "must be a number >= 0"),
    "minProperties": (_is_count, "must be a number >= 0"),
    "maxProperties": (_is_count, "must be a number >= 0"),
    "minimum": (_is_number, "must be a number"),
    "maximum": (_is_number, "must be a number"),
    "exclusiveMinimum": (lambda value: True, ""),  # a number, or a flag in old drafts
    "exclusiveMaximum": (lambda value: True, ""),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "must be a number > 0"),
    "$ref": (lambda value: isinstance(value, str), "must be a string"),
}
# Where schemas stand in a schema.
_ONE = ("additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedProperties", "unevaluatedItems", "additionalItems")  # fmt: skip
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

# What a grammar cannot enforce.
UNENFORCED = frozenset(
    {
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"),
        *("uniqueItems", "contains", "minContains", "maxContains", "propertyNames"),
        *("unevaluatedProperties", "unevaluatedItems", "additionalItems"),
    }
)
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
# What pydantic and OpenAPI say of strings that may be any.
ANY_TEXT = frozenset({"binary", "password", "path"})
# What says nothing about values, or nothing that is enforced here or by OpenAI.
_LOOK_AROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]|\(\?P=")


def check_parameters(schema: Schema, path: str, *, strict: bool = False) -> None:
    """Raises ValueError that names the keyword that is wrong, or with `strict` not enforced."""
    nodes = 0
    for depth, place, node in walk(schema, path):
        nodes += 1 + len(node)
        if depth > MAX_DEPTH:
            raise ValueError(f"`{path}` must be at most {MAX_DEPTH} schemas deep")
        if nodes > MAX_NODES:
            raise ValueError(f"`{path}` must hold at most {MAX_NODES} keywords")
        for keyword, value in node.items():
            allowed, rule = RULES.get(keyword, (None, ""))
            if allowed is not None and not allowed(value):
                raise ValueError(f"`{place}.{keyword}` {rule}")
            if keyword == "$ref" and resolve(schema, value) is None:
                raise ValueError(f"`{place}.$ref` must point into the same schema")
    if schema.get("type", "object") != "object":
        raise ValueError(f"`{path}.type` must be `object`. Given: a schema of another type")
    for _, place, node in walk(schema, path) if strict else ():
        for keyword in _unenforced(node):
            raise ValueError(f"`{place}.{keyword}` cannot be enforced, and `strict` asks for it")


def resolve(root: Schema, reference: str) -> Any:
    """What a `$ref` points at within the same schema; None for anything else."""
    if not reference.startswith("#"):
        return None
    node: Any = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return None
    return node if isinstance(node, dict | bool) else None


def unenforced(schema: Schema) -> list[str]:
    """Keywords of a schema that no grammar enforces, in the order of their places."""
    found: dict[str, None] = {}
    for _, _, node in walk(schema, ""):
        found |= dict.fromkeys(_unenforced(node))
    return list(found)


def enforceable(schema: Any) -> Any:
    """The same without what no grammar enforces."""
    if not isinstance(schema, dict):
        return schema
    left_out = {name.partition(":")[0] for name in _unenforced(schema)}
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in left_out:
            continue
        if keyword in _MAPS and isinstance(value, dict):
            kept[keyword] = {name: enforceable(one) for name, one in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            kept[keyword] = [enforceable(one) for one in value]
        elif keyword in _ONE:
            kept[keyword] = enforceable(value)
        else:
            kept[keyword] = value
    if "oneOf" in kept:  # exactly one of them is more than a grammar can see
        kept["anyOf"] = [*kept.get("anyOf", ()), *kept.pop("oneOf")]
    return kept


def _unenforced(node: Schema) -> Iterator[str]:
    for keyword, value in node.items():
        if (
            keyword in UNENFORCED
            and value is not False
            or keyword == "pattern"
            and _LOOK_AROUND.search(value)
            or keyword == "items"
            and isinstance(value, list)
        ):
            yield keyword
        elif keyword == "format" and str(value) not in FORMATS | ANY_TEXT:
            yield f"format: {str(value)[:32]}"


def walk(schema: Schema, path: str) -> Iterator[tuple[int, str, Schema]]:
    """Every schema in a schema, with its depth and place. Not recursive: a client wrote it."""
    waiting: list[tuple[int, str, Any]] = [(0, path, schema)]
    while waiting:
        depth, place, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield depth, place, node
        for keyword in _MAPS:
            if isinstance(value := node.get(keyword), dict):
                waiting += [(depth + 1, f"{place}.{keyword}.{k[:64]}", v) for k, v in value.items()]
        for keyword in _LISTS:
            if isinstance(value := node.get(keyword), list):
                waiting += [(depth + 1, f"{place}.{keyword}[{i}]", v) for i, v in enumerate(value)]
        waiting += [(depth + 1, f"{place}.{k}", node[k]) for k in _ONE if k in node]
