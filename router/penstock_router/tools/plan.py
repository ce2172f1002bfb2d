"""How the answer to one request is read, and what it is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_router.grammar import Grammar
from penstock_router.logs import log
from penstock_router.tools.definition import NO_TOOLS, Mode, Toolbox
from penstock_router.tools.dialect import Dialect, Start, choose
from penstock_router.tools.formats import FALLBACK
from penstock_router.tools.grammar import reply_grammar
from penstock_router.tools.parser import ReplyParser


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What is looked for in an answer. Give it to `Options.reply`."""

    dialect: Dialect
    toolbox: Toolbox
    tools: Mapping[str, Mapping[str, Any]]  # schemas of arguments by the name of the tool
    budget: int | None = None  # most tokens of reasoning

    def thinks(self, prompt: Sequence[int], text: Callable[[int], str]) -> bool:
        """Whether the answer to this prompt begins within reasoning."""
        return self.dialect.start(prompt, text) is Start.THINKS

    @property
    def may_be_free(self) -> bool:
        """Whether nobody counts on calls being held to anything."""
        box = self.toolbox
        strict = any(tool.strict for tool in box.callable)
        counts = self.budget is not None
        return box.mode is not Mode.REQUIRED and box.parallel and not strict and not counts

    def grammar(
        self, prompt: Sequence[int], text: Callable[[int], str], answer: Grammar | None
    ) -> Grammar | None:
        """What the answer to this prompt is held to, reasoning and calls included. Takes
        milliseconds for many tools. answer: what its text is held to; None: nothing."""
        if not self.tools and answer is None and self.budget is None:
            return None
        start = self.dialect.start(prompt, text)
        return reply_grammar(self.dialect, self.toolbox, start, answer, self.budget)

    def parser(self, thinking: bool) -> ReplyParser:
        """For one sequence."""
        return ReplyParser(self.dialect, self.tools, thinking=thinking)


class Replies:
    """How answers of one model are read."""

    def __init__(self, dialect: Dialect, shows_tools: bool) -> None:
        """shows_tools: whether the chat template shows tools to the model."""
        self.dialect = dialect
        self.shows_tools = shows_tools

    @classmethod
    def load(
        cls,
        template: str | None,
        described: Any,
        tool_parser: str | None,
        reasoning_parser: str | None,
        tokens: Mapping[str, int],
        special_ids: frozenset[int],
    ) -> Replies:
        """template: the chat template. described: the response template. The names are those of
        the operator, `auto` or None: as these show. Raises ValueError for a name that there is
        not."""
        tool_format, reasoning = choose(template, described, tool_parser, reasoning_parser)
        dialect = Dialect(tool_format, reasoning, tokens, special_ids)
        shows_tools = template is not None and "tools" in template
        if shows_tools and tool_format is FALLBACK and not FALLBACK.recognises(template or ""):
            log(
                "WARNING",
                "the chat template shows tools in a format that this server does not know: calls "
                "are read as JSON, unless `--tool-call-parser` says otherwise",
            )
        return cls(dialect, shows_tools)

    def plan(self, toolbox: Toolbox = NO_TOOLS, budget: int | None = None) -> ReplyPlan | None:
        """How an answer is read that may call these tools; None where all of it is text.

        budget: most tokens of reasoning.
        """
        tools = {tool.name: tool.parameters for tool in toolbox.callable}
        if not tools and not self.dialect.is_read_without_tools:
            return None
        return ReplyPlan(self.dialect, toolbox, tools, budget)
