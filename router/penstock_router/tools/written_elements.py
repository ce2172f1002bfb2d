"""Values of JSON schemas as elements within elements (`elements.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock_router.request import BadGrammar
from penstock_router.tools.lark import Rules
from penstock_router.tools.schema import resolve
from penstock_router.tools.styles.elements import Elements
from penstock_router.tools.values import types
from penstock_router.tools.written import MOST_REPEATS, properties, raw_value

Schema = Mapping[str, Any]


class WrittenElements:
    """Rules of the values of one tool's arguments."""

    def __init__(self, rules: Rules, root: Schema, style: Elements) -> None:
        self._rules, self._root, self._style = rules, root, style

    def members(self, node: Schema) -> str:
        """The properties of an object, an element each. Raises BadGrammar for names that are not
        known: what closes an element must name it again, which no grammar can see to."""
        named = list(properties(node))
        if not named and node.get("additionalProperties", True) is not False:
            raise BadGrammar("an object of any names cannot be written as elements")
        pieces = []
        for key, inner, required in named:
            begin = self._rules.literal(f"{self._style.opens}{key}>")
            one = self._rules.rule(f"{begin} {self.value(inner, key)}")
            pieces.append(one if required else f"{one}?")
        return " ".join(pieces)

    def value(self, node: Any, key: str) -> str:
        """A value with what closes its element."""
        rules, end = self._rules, self._style.end(key)
        if not isinstance(node, dict):
            return self._text({} if node is not False else False, end)
        if "$ref" in node:
            return self._again(resolve(self._root, node["$ref"]), key)
        for word in ("anyOf", "oneOf"):
            if word in node:
                rest = {name: value for name, value in node.items() if name != word}
                some = [{} if one is True else one for one in node[word] if one is not False]
                if some:
                    return rules.choice([self.value({**rest, **one}, key) for one in some])
        if "enum" in node or "const" in node:
            values = node.get("enum", [node.get("const")])
            return rules.choice([rules.literal(_shown(value) + end) for value in values])
        kinds = types(self._root, node)
        if "string" in kinds:  # all that may be one is one
            return self._text({**node, "type": "string"}, end)
        return rules.choice([self._of_type(kind, node, end) for kind in sorted(kinds)])

    def _again(self, node: Any, key: str) -> str:
        """As a rule of its own, which may hold itself."""
        name = f"element {key} {id(self._root)} {json.dumps(node, sort_keys=True)}"
        return self._rules.recursive(name, lambda _: self.value(node, key))

    def _of_type(self, kind: str, node: Schema, end: str) -> str:
        match kind:
            case "object":
                return self._rules.rule(f"{self.members(node)} {self._rules.literal(end)}")
            case "array":
                return self._array(node, end)
        return self._text({**node, "type": kind}, end)

    def _array(self, node: Schema, end: str) -> str:
        rules, item = self._rules, self._style.item
        least = min(int(node.get("minItems", 0)), MOST_REPEATS)
        most = node.get("maxItems")
        if most is not None and most < 1:
            return rules.literal(end)
        begin = rules.literal(f"{self._style.opens}{item}>")
        one = rules.rule(f"{begin} {self._again(node.get('items', {}), item)}")
        times = f"{{{least},{'' if most is None else min(int(most), MOST_REPEATS)}}}"
        return f"{one}{times} {rules.literal(end)}"

    def _text(self, node: Any, end: str) -> str:
        text, other = raw_value(self._rules, self._root, node, end, end)
        found = text or other
        assert found is not None
        return found


def _shown(value: Any) -> str:
    """A constant as it stands in an element. Raises BadGrammar for what is no plain value."""
    if isinstance(value, list | dict):
        raise BadGrammar("a constant that is a list or an object cannot be written as elements")
    return value if isinstance(value, str) else json.dumps(value)
