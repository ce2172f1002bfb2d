"""Values of JSON schemas as formats write them that are no JSON: raw text, Python, Gemma's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from penstock_router.tools.formats_of_text import FORMATS
from penstock_router.tools.lark import Rules, escape
from penstock_router.tools.patterns import may_be_empty
from penstock_router.tools.schema import resolve
from penstock_router.tools.values import types

Schema = Mapping[str, Any]
_CHOICES = ("anyOf", "oneOf", "allOf")
ANY_KEY = "/[A-Za-z_][A-Za-z0-9_]{0,31}/"
MOST_REPEATS = 4096


def properties(schema: Schema) -> Iterator[tuple[str, Any, bool]]:
    """Names, schemas and whether they must be there."""
    required = list(schema.get("required", ()))
    listed = schema.get("properties", {})
    for key, node in listed.items():
        if node is not False or key in required:
            yield key, node, key in required
    for key in dict.fromkeys(required):
        if key not in listed:
            yield key, {}, True


def rooted(root: Schema, node: Any) -> Any:
    """A schema within another one, with what its references lead to."""
    if not isinstance(node, dict) or not _refers(node):
        return node
    return {**_moved(node), "$defs": {"root": _moved(root)}}


def _refers(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_refers, node))
    return isinstance(node, dict) and ("$ref" in node or any(map(_refers, node.values())))


def _moved(node: Any) -> Any:
    """The same where its root has become a definition."""
    if isinstance(node, list):
        return [_moved(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: _moved(value) for key, value in node.items()}
    if isinstance(reference := node.get("$ref"), str) and reference.startswith("#"):
        made["$ref"] = f"#/$defs/root{reference[1:]}"
    return made


def raw_value(
    rules: Rules, root: Schema, node: Any, end: str, marker: str
) -> tuple[str | None, str | None]:
    """A value and what ends it: as text if it may be a string, and as JSON if it may be anything
    else. end: the marker, perhaps with a newline before it."""
    kinds = types(root, node)
    text = None
    if node is False:
        return None, f"{rules.json(False)} {rules.literal(end)}"
    if "string" in kinds:
        text = _raw_text(rules, _string_node(root, node), end, marker)
    if kinds == {"string"}:
        return text, None
    other = f"{rules.json(rooted(root, _without_strings(root, node)))} {rules.literal(end)}"
    return text, other


def _raw_text(rules: Rules, node: Schema, end: str, marker: str) -> str:
    if words := _words(node):
        return rules.choice([rules.literal(word + end) for word in words])
    pattern, conditions = _text_pattern(node)
    if end[:1] >= "\ud800" and end[:1] <= "\udfff":  # a token ends the text
        shape = rules.terminal(" & ".join([f"/{pattern}/", *conditions]))
        return f"{shape}{_perhaps(node)} {rules.literal(end)}"
    # Text up to the marker, and a lexeme holds both.
    head = ""
    for character in end:
        if "\ud800" <= character <= "\udfff":
            break
        head += character
    rest = rules.literal(end[len(head) :])
    shapes = [f"/{pattern}{escape(head)}/"]
    shapes += [f"{condition[:-1]}{escape(head)}/" for condition in conditions]
    if rest:
        return f"{rules.terminal(' & '.join(shapes))} {rest}"
    shapes.append(f"~/(?s:.*){escape(marker)}(?s:.+)/")
    return rules.lazy(" & ".join(shapes))


def _words(node: Schema) -> list[str]:
    """Values of an enum that are strings."""
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    return [value for value in values if isinstance(value, str)]


def _text_pattern(node: Schema) -> tuple[str, list[str]]:
    """A regular expression of a string, and others that must match as well."""
    least, most = int(node.get("minLength", 0)), node.get("maxLength")
    repeats = f"{{{least},{'' if most is None else int(most)}}}"
    conditions = []
    if "pattern" in node:
        pattern = node["pattern"].replace("/", r"\/")
        before = "" if pattern.startswith("^") else "(?s:.*)"
        after = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "(?s:.*)"
        inner = pattern.removeprefix("^")
        inner = inner.removesuffix("$") if not after else inner
        conditions.append(f"/{before}(?:{inner}){after}/")
    if (shape := FORMATS.get(str(node.get("format")))) is not None:
        conditions.append(f"/(?:{shape})/")
    return f"(?s:.{repeats})", conditions


def _perhaps(node: Schema) -> str:
    """What follows a lexeme that may be left out, as none is empty."""
    if str(node.get("format")) in FORMATS:
        return ""
    empty = not node.get("minLength") and may_be_empty(node.get("pattern", ""))
    return "?" if empty else ""


def _string_node(root: Schema, node: Any) -> Schema:
    """The part of a schema that says what its strings are; any string where none does."""
    for _ in range(16):
        if not isinstance(node, dict):
            return {}
        if "$ref" in node:
            node = resolve(root, node["$ref"])
            continue
        choices = [one for word in _CHOICES for one in node.get(word, ())]
        node_kinds = [one for one in choices if "string" in types(root, one)]
        if "type" in node or "enum" in node or "const" in node or not node_kinds:
            return node
        node = node_kinds[0]
    return {}


def _without_strings(root: Schema, node: Any) -> Any:
    """The other values of a schema. What is text is none of them."""
    for _ in range(16):
        if not isinstance(node, dict) or "$ref" not in node:
            break
        node = resolve(root, node["$ref"])
    if not isinstance(node, dict):
        return {"type": ["object", "array", "number", "boolean", "null"]}
    if isinstance(kinds := node.get("type"), list):
        return {**node, "type": [kind for kind in kinds if kind != "string"]}
    for word in ("anyOf", "oneOf"):
        if word in node:
            kept = [one for one in node[word] if types(root, one) != {"string"}]
            return {**node, word: [_without_strings(root, one) for one in kept]}
    if "enum" in node:
        return {**node, "enum": [value for value in node["enum"] if not isinstance(value, str)]}
    if "type" not in node and not any(word in node for word in ("const", "allOf")):
        return {**node, "type": ["object", "array", "number", "boolean", "null"]}
    return node


def pythonic(rules: Rules, root: Schema, node: Any) -> str:
    """A value as Python writes it. JSON's values are read as well, so within others JSON stands."""
    if types(root, node) == {"boolean"} and isinstance(node, dict) and "enum" not in node:
        return rules.choice(['"True"', '"False"'])
    return rules.json(rooted(root, node))


class Notation:
    """Gemma's: keys without quotes, strings between delimiters."""

    def __init__(self, rules: Rules, root: Schema, delimiter: str) -> None:
        self._rules = rules
        self._root = root
        self._delimiter = rules.literal(delimiter)
        self._mark = delimiter
        self._is_token = "\ud800" <= delimiter[:1] <= "\udfff"

    def value(self, node: Any) -> str:
        """A value of a schema."""
        if node is False:
            return self._rules.json(False)
        if not isinstance(node, dict):
            node = {}
        if "$ref" in node:
            target = resolve(self._root, node["$ref"])
            return self._again("$ref", target)
        for word in ("anyOf", "oneOf"):
            if word in node:
                rest = {k: v for k, v in node.items() if k != word}
                branches = [{} if one is True else one for one in node[word] if one is not False]
                values = [self.value({**rest, **one}) for one in branches]
                return self._rules.choice(values) if values else self._rules.json(False)
        if "enum" in node or "const" in node:
            values = node.get("enum", [node.get("const")])
            return self._rules.choice([self._constant(value) for value in values])
        kinds = sorted(types(self._root, node))
        return self._rules.choice([self._of_type(kind, node) for kind in kinds])

    def _again(self, what: str, node: Any) -> str:
        """A value as a rule of its own, which may hold itself."""
        key = f"{what} {id(self._root)} {json.dumps(node, sort_keys=True)}"
        return self._rules.recursive(key, lambda _: self.value(node))

    def _of_type(self, kind: str, node: Schema) -> str:
        match kind:
            case "string":
                return self._string(node)
            case "object":
                return self._object(node)
            case "array":
                return self._array(node)
        limits = {k: v for k, v in node.items() if k not in ("type", "default", "description")}
        return self._rules.json({**limits, "type": kind})

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self._delimiter} {self._rules.literal(value)} {self._delimiter}"
        return self._rules.literal(json.dumps(value))

    def _string(self, node: Schema) -> str:
        pattern, conditions = _text_pattern(node)
        if self._is_token:
            shape = " & ".join([f"/{pattern}/", *conditions])
            text = f"{self._rules.terminal(shape)}{_perhaps(node)}"
            return f"{self._delimiter} {text} {self._delimiter}"
        mark = escape(self._mark)
        shape = " & ".join(
            [
                f"/{pattern}{mark}/",
                *(f"{condition[:-1]}{mark}/" for condition in conditions),
                f"~/(?s:.*){mark}(?s:.+)/",
            ]
        )
        return f"{self._delimiter} {self._rules.lazy(shape)}"

    def _array(self, node: Schema) -> str:
        least = min(int(node.get("minItems", 0)), MOST_REPEATS)
        most = node.get("maxItems")
        if most == 0:
            return '"[]"'
        item = self._again("items", node.get("items"))
        rest = f'("," {item})' + f"{{{max(least - 1, 0)},{'' if most is None else int(most) - 1}}}"
        if most is None and least <= 1:
            rest = f'("," {item})*'
        elif most == 1:
            rest = ""
        return f'"[" {item} {rest} "]"' if least else f'"[" ({item} {rest})? "]"'

    def _object(self, node: Schema) -> str:
        items = [
            (f"{self._key(key)} {self._rules.rule(self.value(inner))}", required)
            for key, inner, required in properties(node)
        ]
        if not items and node.get("additionalProperties", True) is not False:
            inner = node.get("additionalProperties")
            value = self._again("items", inner)
            key = self._rules.terminal(ANY_KEY)
            pair = f'{key} ":" {value}'
            return f'"{{" ({pair} ("," {pair})*)? "}}"'
        return f'"{{" {self._rules.listed(items, ",")} "}}"'

    def _key(self, key: str) -> str:
        if key.isidentifier() and key.isascii():
            return self._rules.literal(key + ":")
        return f'{self._delimiter} {self._rules.literal(key)} {self._delimiter} ":"'
