"""JSON schemas drawn by chance, of all that is enforced."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
NAMES = ("a", "name", "größe", "a b", 'q"uote', "x-y", "customer_full_name")


def schema(chance: random.Random, depth: int = 3) -> Schema:
    """One that texts of a few hundred characters satisfy."""
    makers = LEAVES if depth == 0 else LEAVES + BRANCHES
    return chance.choice(makers)(chance, depth)


def loosened(chance: random.Random, node: Any) -> Any:
    """A schema without some of its types, and with some of its objects open."""
    if isinstance(node, list):
        return [loosened(chance, one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v if k in ("enum", "const") else loosened(chance, v) for k, v in node.items()}
    if isinstance(kept.get("type"), str) and len(kept) > 1 and chance.random() < 0.7:
        del kept["type"]
    if kept.get("additionalProperties") is False and chance.random() < 0.7:
        del kept["additionalProperties"]
    return kept


def _integer(chance: random.Random, depth: int) -> Schema:
    low = chance.randint(-50, 50)
    wanted: Schema = {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 200)}
    if chance.random() < 0.3:
        wanted["exclusiveMinimum"] = wanted.pop("minimum") - 1
    return wanted


def _number(chance: random.Random, depth: int) -> Schema:
    return {"type": "number", "minimum": -3, "maximum": 12.5}


def _multiple(chance: random.Random, depth: int) -> Schema:
    return {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}


def _string(chance: random.Random, depth: int) -> Schema:
    least = chance.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randint(0, 8)}


def _pattern(chance: random.Random, depth: int) -> Schema:
    patterns = ("^[a-c]{2,4}$", r"^\d{3}-\d{2}$", "^(x|yy)+z$", "^[A-Z][a-z]{1,6}$")
    return {"type": "string", "pattern": chance.choice(patterns), "maxLength": 12}


def _format(chance: random.Random, depth: int) -> Schema:
    return {"type": "string", "format": chance.choice(("date", "uuid", "ipv4", "time"))}


def _enum(chance: random.Random, depth: int) -> Schema:
    return {"enum": chance.sample([1, "one", None, True, 2.5, {"k": [1]}, "zwölf"], 3)}


def _const(chance: random.Random, depth: int) -> Schema:
    return {"const": chance.choice([0, "x", False, None, [1, 2]])}


def _constant_type(chance: random.Random, depth: int) -> Schema:
    return {"type": chance.choice(["boolean", "null"])}


def _types(chance: random.Random, depth: int) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "maximum": 9}


def _object(chance: random.Random, depth: int) -> Schema:
    names = chance.sample(NAMES, chance.randint(1, 3))
    wanted: Schema = {
        "type": "object",
        "properties": {name: schema(chance, depth - 1) for name in names},
        "required": [name for name in names if chance.random() < 0.6],
        "additionalProperties": False,
    }
    return wanted


def _map(chance: random.Random, depth: int) -> Schema:
    return {
        "type": "object",
        "patternProperties": {"^k[0-9]$": schema(chance, 0)},
        "additionalProperties": False,
        "maxProperties": 3,
    }


def _array(chance: random.Random, depth: int) -> Schema:
    least = chance.randint(0, 2)
    items = schema(chance, depth - 1)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + 2}


def _tuple(chance: random.Random, depth: int) -> Schema:
    parts = [schema(chance, depth - 1) for _ in range(2)]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": 2}


def _any_of(chance: random.Random, depth: int) -> Schema:
    return {"anyOf": [schema(chance, depth - 1), schema(chance, 0)]}


def _all_of(chance: random.Random, depth: int) -> Schema:
    return {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]}


def _reference(chance: random.Random, depth: int) -> Schema:
    node: Schema = {
        "type": "object",
        "properties": {"value": {"enum": [1, 2]}, "next": {"anyOf": [{"$ref": "#/$defs/node"},
                                                                     {"type": "null"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    }  # fmt: skip
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"} if depth == 3 else {"type": "null"}


LEAVES: list[Callable[[random.Random, int], Schema]] = [
    _integer, _number, _multiple, _string, _pattern, _format, _enum, _const, _constant_type, _types,
]  # fmt: skip
BRANCHES: list[Callable[[random.Random, int], Schema]] = [
    _object, _object, _object, _map, _array, _array, _tuple, _any_of, _all_of, _reference,
]  # fmt: skip
