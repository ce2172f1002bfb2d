"""What an answer with tools is held to: the format's own syntax, with the schemas of the tools.

With `auto` the text is free up to the format's own marker, and what follows is held; `required` and
a named function hold from the first token on. Reasoning stays free, up to the token that ends it.
"""

from __future__ import annotations

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.tools.definition import Mode, Tool, Toolbox
from penstock_router.tools.dialect import Dialect, Start
from penstock_router.tools.lark import Rules
from penstock_router.tools.styles.channels import Channels
from penstock_router.tools.written_calls import WRITTEN, arguments


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
        self.written = WRITTEN[type(style)](self.rules, style)

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
            message(f"commentary to=functions.{tool.name}{style.call}", arguments(rules, tool))
            for tool in tools
        ]
        call = rules.choice(calls)
        if self.toolbox.mode is Mode.REQUIRED:
            return f"{thoughts}? {call}"
        spoken = rules.rule(message("commentary", ended))
        return f"{thoughts}? ({final} | {spoken}? {call})"
