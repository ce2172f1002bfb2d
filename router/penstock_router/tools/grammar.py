"""What an answer with tools is held to: the format's own syntax, with the schemas of the tools.

With `auto` the text is free up to the format's own marker, and what follows is held; `required` and
a named function hold from the first token on. Reasoning stays free, up to the token that ends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.structured.meant import as_meant
from penstock_router.tools.definition import Mode, Tool, Toolbox
from penstock_router.tools.dialect import Dialect, Start
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


def reply_grammar(
    dialect: Dialect,
    toolbox: Toolbox,
    start: Start,
    answer: Grammar | None = None,
    budget: int | None = None,
) -> Grammar | None:
    """What the whole answer is held to; None where it is free.

    answer: what text is held to that calls nothing. budget: most tokens of reasoning. The schemas
    of tools were checked.
    """
    tools = toolbox.callable
    thinks = budget is not None and (start is not Start.ANSWER or dialect.has_channels)
    if not tools and answer is None and not thinks:
        return None
    made = _Reply(dialect, toolbox, answer, budget)
    return Grammar(GrammarKind.LARK, made.rules.text(made.start(start)))


class _Reply:
    def __init__(
        self, dialect: Dialect, toolbox: Toolbox, answer: Grammar | None, budget: int | None
    ) -> None:
        self.dialect = dialect
        self.budget = budget
        self.format = dialect.format
        self.toolbox = toolbox
        self.answer = answer
        self.rules = Rules(dialect.alphabet.ids)
        style = self.format.style
        self.written = _STYLES[type(style)](self.rules, style)

    def start(self, start: Start) -> str:
        if isinstance(self.format.style, Channels):
            if start is Start.WITHIN and not self.toolbox.callable:
                return self._body()
            return self._channels(self.format.style)
        body = self._body()
        thoughts = self.dialect.thoughts
        if start is Start.ANSWER or not thoughts.opens:
            return body
        blank = self.rules.terminal(r"/[ \t\r\n]{1,4}/")
        ends = self.rules.choice(
            [self.rules.up_to(close, most=self.budget) for close in thoughts.closes]
        )
        if not (self._is_free and thoughts.closes[0][-1:] in self.dialect.alphabet.ids):
            # Free text takes white space itself.
            ends = ends if self._is_free else f"{ends} {blank}?"
        if start is Start.THINKS:
            return f"{ends} {body}"
        opened = self.rules.choice([self.rules.literal(o) for o in thoughts.opens])
        if self._is_free and thoughts.opens[0][:1] not in self.dialect.alphabet.ids:
            return body  # a tag that is text is free text
        return f"({opened} {ends})? {body}"

    @property
    def _is_free(self) -> bool:
        """Whether text may come first."""
        return self.toolbox.mode is not Mode.REQUIRED and self.answer is None

    def _body(self) -> str:
        """Behind reasoning."""
        tools = self.toolbox.callable
        if not tools:
            if self.answer is None:
                return f"{self._wrapped([])} {self.rules.free()}"
            return self.rules.grammar(self.answer)
        head, calls = self._calls(tools)
        forced = f"{self.rules.literal(head)} {calls}"
        if self.toolbox.mode is Mode.REQUIRED:
            return forced
        if self.answer is not None:
            return self.rules.rule(f"{self.rules.grammar(self.answer)} | {forced}")
        if self.format.bare:
            return self._bare(forced)
        ids = self.dialect.alphabet.ids
        words = [o for o in self.format.opens if not any(c in ids for c in o)]
        whole = self.rules.rule(f"{self.rules.up_to(head)} {calls}")
        return f"{self._wrapped(words)} {self.rules.rule(f'{whole} | {self.rules.free(words)}')}"

    def _wrapped(self, words: list[str]) -> str:
        """Text and the tokens that stand around it; as special ones they are no text."""
        row, ids = self.format, self.dialect.alphabet.ids
        around = [one for one in row.strays if one not in row.section and one[:1] in ids]
        if not row.wraps or not around:
            return ""
        marks = self.rules.choice([self.rules.literal(one) for one in around])
        return f"({self.rules.free(words)} {marks})*"

    def _bare(self, calls: str) -> str:
        """Calls stand where an answer begins, or it is text that begins otherwise."""
        blank = self.rules.terminal(r"/[ \t\r\n]{1,4}/")
        text = self.rules.terminal(rf"/[^\s\x{{{ord(self.format.bare):x}}}](?s:.*)/")
        begins = [calls, text]
        ids = self.dialect.alphabet.ids
        for marker in self.format.opens:
            if marker[:1] in ids:
                begins.append(f"{self.rules.literal(marker)} {calls}")
        return f"{blank}? ({' | '.join(begins)})?"

    def _calls(self, tools: tuple[Tool, ...]) -> tuple[str, str]:
        """What calls begin with, and all behind it."""
        row, literal = self.format, self.rules.literal
        opened = "" if row.bare else row.opens[0]
        before, after = row.pads
        head = f"{row.section[0]}{opened}{before}"
        one = f"{self.written.several(tools, self._several)} {literal(after + self._close)}"
        more = ""
        if self._several and not self.written.lists:
            between = literal(f"{row.between or ''}{opened}{before}")
            more = f"({between} {one})*" if between else f"({one})*"
        return head, self.rules.rule(f"{one} {more} {literal(row.section[1])}")

    @property
    def _close(self) -> str:
        return getattr(self.format.style, "close", "") if self.written.closes else ""

    @property
    def _several(self) -> bool:
        return self.toolbox.parallel and self.format.between is not None

    def _channels(self, style: Channels) -> str:
        rules, encode = self.rules, self.dialect.alphabet.encoded
        end = encode("<|end|><|start|>assistant")
        ended = rules.up_to(end)

        def message(head: str, body: str) -> str:
            return f"{rules.literal(encode(f'<|channel|>{head}') + style.message)} {body}"

        thoughts = rules.rule(message("analysis", rules.up_to(end, most=self.budget)))
        text = rules.free() if self.answer is None else rules.grammar(self.answer)
        final = message("final", text)
        tools = self.toolbox.callable
        if not tools:
            return f"{thoughts}? {final}"
        calls = [
            message(f"commentary to=functions.{tool.name}{style.call}", _arguments(rules, tool))
            for tool in tools
        ]
        call = rules.choice(calls)
        if self.toolbox.mode is Mode.REQUIRED:
            return f"{thoughts}? {call}"
        spoken = rules.rule(message("commentary", ended))
        return f"{thoughts}? ({final} | {spoken}? {call})"


class _Written:
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


class _Json(_Written):
    def __init__(self, rules: Rules, style: JsonCall) -> None:
        super().__init__(rules, style)
        self.lists = style.many

    def several(self, tools: tuple[Tool, ...], parallel: bool) -> str:
        return self.listed(tools, parallel) if self.lists else super().several(tools, parallel)

    def call(self, tool: Tool) -> str:
        style = self.style
        if style.keyed:
            key = self.rules.literal(f"{{{json.dumps(tool.name)}: ")
            return f'{key} {_arguments(self.rules, tool)} "}}"'
        if style.counter:
            number = self.rules.terminal("/[0-9]{1,2}/")
            start = self.rules.literal(f'{{"{style.counter}": "')
            head = f'", "{style.name}": '
            head = f"{start} {number} {self.rules.literal(head + json.dumps(tool.name))}"
        else:
            head = self.rules.literal(f'{{"{style.name}": {json.dumps(tool.name)}')
        key = self.rules.literal(f', "{style.arguments}": ')
        return f'{head} {key} {_arguments(self.rules, tool)} "}}"'


class _Header(_Written):
    def call(self, tool: Tool) -> str:
        style, literal = self.style, self.rules.literal
        name = literal(style.before + style.lead + style.prefix + tool.name + style.counter)
        if style.lead:
            name = f"{self.rules.terminal('/[a-z0-9]{10}/')} {name}"
        if style.counter:
            name += " " + self.rules.terminal("/[0-9]{1,3}/")
        return f"{name} {literal(style.separator)} {_arguments(self.rules, tool)}"


class _Tagged(_Written):
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


class _Python(_Written):
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


class _Elements(_Written):
    def call(self, tool: Tool) -> str:
        schema = _schema(tool)
        head = self.rules.literal(tool.name + self.style.name_end)
        if not schema.get("properties") and not schema.get("required"):
            return head
        return f"{head} {WrittenElements(self.rules, schema, self.style).members(schema)}"


class _Unquoted(_Written):
    def call(self, tool: Tool) -> str:
        schema = _schema(tool)
        notation = Notation(self.rules, schema, self.style.delimiter)
        return f"{self.rules.literal(self.style.before + tool.name)} {notation.value(schema)}"


_STYLES: Mapping[type[Style], Callable[[Rules, Any], _Written]] = {
    JsonCall: _Json,
    Header: _Header,
    Tagged: _Tagged,
    Pythonic: _Python,
    Unquoted: _Unquoted,
    Channels: _Written,
    Elements: _Elements,
}


def _schema(tool: Tool) -> Mapping[str, Any]:
    """What is enforced of a tool's parameters: all of them with `strict`."""
    schema = as_meant(tool.parameters if tool.strict else enforceable(tool.parameters))
    return {"type": "object", **schema}


def _arguments(rules: Rules, tool: Tool) -> str:
    return rules.json(_schema(tool), tool.strict)
