"""How a model is made to write calls: the rules of each style of `styles`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from penstock_router.structured.meant import as_meant
from penstock_router.tools.definition import Tool
from penstock_router.tools.lark import Rules
from penstock_router.tools.schema import enforceable
from penstock_router.tools.styles.channels import Channels
from penstock_router.tools.styles.elements import Elements
from penstock_router.tools.styles.json_calls import Header, JsonCall
from penstock_router.tools.styles.notations import Pythonic, Unquoted
from penstock_router.tools.styles.style import Style
from penstock_router.tools.styles.tagged import Tagged
from penstock_router.tools.written import ANY_KEY, Notation, properties, pythonic, raw_value
from penstock_router.tools.written_elements import WrittenElements


class WrittenCalls:
    """How a style writes calls. lists: several are one list. closes: the format's closing marker
    follows each."""

    lists = False
    closes = True

    def __init__(self, rules: Rules, style: Any) -> None:
        self.rules = rules
        self.style = style

    def several(self, tools: tuple[Tool, ...], parallel: bool) -> str:
        """A call of one of the tools; where `lists`, a list of such."""
        return self.rules.choice([self.rules.rule(self.call(tool)) for tool in tools])

    def call(self, tool: Tool) -> str:
        """A call of this tool."""
        raise NotImplementedError

    def listed(self, tools: tuple[Tool, ...], parallel: bool) -> str:
        """A list of calls."""
        one = self.rules.choice([self.rules.rule(self.call(tool)) for tool in tools])
        return (
            f'"[" {one} ({self.rules.literal(", ")} {one})* "]"' if parallel else f'"[" {one} "]"'
        )


class _Json(WrittenCalls):
    def __init__(self, rules: Rules, style: JsonCall) -> None:
        super().__init__(rules, style)
        self.lists = style.many

    def several(self, tools: tuple[Tool, ...], parallel: bool) -> str:
        return self.listed(tools, parallel) if self.lists else super().several(tools, parallel)

    def call(self, tool: Tool) -> str:
        style = self.style
        if style.keyed:
            key = self.rules.literal(f"{{{json.dumps(tool.name)}: ")
            return f'{key} {arguments(self.rules, tool)} "}}"'
        if style.counter:
            number = self.rules.terminal("/[0-9]{1,2}/")
            start = self.rules.literal(f'{{"{style.counter}": "')
            head = f'", "{style.name}": '
            head = f"{start} {number} {self.rules.literal(head + json.dumps(tool.name))}"
        else:
            head = self.rules.literal(f'{{"{style.name}": {json.dumps(tool.name)}')
        key = self.rules.literal(f', "{style.arguments}": ')
        return f'{head} {key} {arguments(self.rules, tool)} "}}"'


class _Header(WrittenCalls):
    def call(self, tool: Tool) -> str:
        style, literal = self.style, self.rules.literal
        name = literal(style.before + style.lead + style.prefix + tool.name + style.counter)
        if style.lead:
            name = f"{self.rules.terminal('/[a-z0-9]{10}/')} {name}"
        if style.counter:
            name += " " + self.rules.terminal("/[0-9]{1,3}/")
        return f"{name} {literal(style.separator)} {arguments(self.rules, tool)}"


class _Tagged(WrittenCalls):
    def call(self, tool: Tool) -> str:
        style, literal = self.style, self.rules.literal
        head = literal(tool.name + style.name_end)
        if style.head_end:
            head += f" {self.rules.terminal('/[0-9]{1,3}/')} {literal(style.head_end)}"
        line = "" if style.name_end.endswith("\n") else style.line
        schema = _schema(tool)
        pieces = []
        for key, node, required in properties(schema):
            one = self.rules.rule(self._argument(schema, key, node))
            pieces.append(one if required else f"{one}?")
        if not pieces and schema.get("additionalProperties", True) is not False:
            pieces.append(f"{self.rules.rule(self._argument(schema, None, {}))}*")
        return f"{head} {literal(line)} {' '.join(pieces)}"

    def _argument(self, schema: Mapping[str, Any], key: str | None, node: Any) -> str:
        """key: None where any is allowed."""
        style, literal = self.style, self.rules.literal
        named = self.rules.terminal(ANY_KEY) if key is None else literal(key)
        opened = f"{literal(style.key_open)} {named}"
        pad = "\n" if style.padded else ""
        line = style.line if style.value_open else ""
        value_end = pad + style.value_end
        behind = literal(style.line)
        text, other = raw_value(self.rules, schema, node, value_end, style.value_end)
        options = []
        for value, kind in ((text, style.raw), (other, style.other)):
            if value is None:
                continue
            attribute = style.attribute and style.attribute + kind + style.attribute_end
            head = literal(f"{attribute or style.key_end}{line}{style.value_open}{pad}")
            options.append(f"{head} {value} {behind}")
            if text is not None and not style.attribute:
                break  # without an attribute all that may be a string is one
        return f"{opened} {self.rules.choice(options)}"


class _Python(WrittenCalls):
    lists = True

    def several(self, tools: tuple[Tool, ...], parallel: bool) -> str:
        return self.listed(tools, parallel)

    def call(self, tool: Tool) -> str:
        schema = _schema(tool)
        items = [
            (f"{self.rules.literal(key + '=')} {pythonic(self.rules, schema, node)}", required)
            for key, node, required in properties(schema)
        ]
        return f'{self.rules.literal(tool.name + "(")} {self.rules.listed(items, ", ")} ")"'


class _Elements(WrittenCalls):
    def call(self, tool: Tool) -> str:
        schema = _schema(tool)
        head = self.rules.literal(tool.name + self.style.name_end)
        if not schema.get("properties") and not schema.get("required"):
            return head
        return f"{head} {WrittenElements(self.rules, schema, self.style).members(schema)}"


class _Unquoted(WrittenCalls):
    def call(self, tool: Tool) -> str:
        schema = _schema(tool)
        notation = Notation(self.rules, schema, self.style.delimiter)
        return f"{self.rules.literal(self.style.before + tool.name)} {notation.value(schema)}"


WRITTEN: Mapping[type[Style], Callable[[Rules, Any], WrittenCalls]] = {
    JsonCall: _Json,
    Header: _Header,
    Tagged: _Tagged,
    Pythonic: _Python,
    Unquoted: _Unquoted,
    Channels: WrittenCalls,
    Elements: _Elements,
}


def _schema(tool: Tool) -> Mapping[str, Any]:
    """What is enforced of a tool's parameters: all of them with `strict`."""
    schema = as_meant(tool.parameters if tool.strict else enforceable(tool.parameters))
    return {"type": "object", **schema}


def arguments(rules: Rules, tool: Tool) -> str:
    """What a tool takes, as JSON."""
    return rules.json(_schema(tool), tool.strict)
