"""What one model writes: its formats with its tokens, made once when it is loaded."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from penstock_router.logs import log
from penstock_router.reasoning import NAMED as REASONING
from penstock_router.reasoning import ReasoningFormat, find_reasoning
from penstock_router.tools import formats
from penstock_router.tools.alphabet import Alphabet
from penstock_router.tools.format import Format
from penstock_router.tools.reader import Literals
from penstock_router.tools.response_template import Unreadable, read_template
from penstock_router.tools.styles.channels import Channels

T = TypeVar("T")

TAIL = 64  # tokens of a prompt in which a tag that opens or closes reasoning may stand at the end


class Start(enum.Enum):
    """Where an answer begins."""

    ANSWER = "behind reasoning, or there is none"
    MAY_THINK = "before reasoning, which may be left out"
    THINKS = "within reasoning"
    WITHIN = "within a message of a channel, which goes on"


class Dialect:
    """A tool format, a reasoning format, and which of their markers are tokens."""

    def __init__(
        self,
        tool_format: Format,
        reasoning: ReasoningFormat | None,
        tokens: Mapping[str, int],
        special_ids: frozenset[int],
    ) -> None:
        """tokens: ids of added tokens by their spelling."""
        thoughts = reasoning or ReasoningFormat("none")
        strings = [*tool_format.strings, *thoughts.strings]
        self.name = tool_format.name
        self.alphabet = Alphabet(tokens, special_ids, strings)
        encode = self.alphabet.encoded
        self.format = tool_format.encoded(encode)
        self.thoughts = thoughts.encoded(encode)
        opens, closes = self.thoughts.opens, self.thoughts.closes
        always = (*self.format.strays, *opens, *closes)
        # Some answers hold more than text in any case.
        self.is_read_without_tools = reasoning is not None or tool_format.wraps
        self.has_channels = isinstance(self.format.style, Channels)
        self.marks = {
            True: Literals((*self.format.opens, *always)),
            False: Literals((*(self.format.opens if self.has_channels else ()), *always)),
        }
        # A call ends reasoning that was not closed, where its marker cannot be mere talk of one.
        calls = tuple(o for o in self.format.opens if o[:1] in self.alphabet.ids)
        self.thought_opens = Literals(opens)
        self.thought_ends = {True: Literals((*closes, *calls)), False: Literals(closes)}

    @property
    def counts_thoughts(self) -> bool:
        """Whether reasoning can be ended after some tokens: where tokens mark it."""
        if self.has_channels:
            return self.alphabet.is_token("<|end|>")
        marks = (*self.thoughts.opens, *self.thoughts.closes)
        return all(mark[:1] in self.alphabet.ids for mark in marks)

    def start(self, prompt: Sequence[int], text: Callable[[int], str]) -> Start:
        """Where the answer to this prompt begins.

        text: what a token reads as. A template may open the reasoning, or say that there is none.
        """
        if not self.thoughts.opens and not self.has_channels:
            return Start.ANSWER
        characters = self.alphabet.characters
        tail = "".join(characters.get(i) or text(i) for i in prompt[-TAIL:]).rstrip()
        if self.has_channels:
            begun = tail.endswith(self.alphabet.encoded("<|start|>assistant"))
            return Start.ANSWER if begun else Start.WITHIN
        if tail.endswith(self.thoughts.closes):
            return Start.ANSWER
        if tail.endswith(self.thoughts.opens) or self.thoughts.implied:
            return Start.THINKS
        return Start.MAY_THINK


def choose(
    template: str | None,
    described: Any,
    tool_parser: str | None,
    reasoning_parser: str | None,
) -> tuple[Format, ReasoningFormat | None]:
    """The rows for a model: what the operator named, else what the checkpoint's response template
    describes, else what its chat template shows. `none` switches off.

    described: the response template. Raises ValueError for a name that there is not.
    """
    own_format, own_reasoning = _described(described)
    reasoning = own_reasoning or find_reasoning(template or "")
    if reasoning_parser not in (None, "auto"):
        reasoning = _named(REASONING, reasoning_parser, "--reasoning-parser")
    found = own_format or formats.find_format(template or "")
    if reasoning is not None and reasoning.channel is not None:
        found = formats.NAMED[reasoning.channel]
    if tool_parser not in (None, "auto"):
        found = _named(formats.NAMED, tool_parser, "--tool-call-parser")
    return found or formats.FALLBACK, reasoning


def _described(template: Any) -> tuple[Format | None, ReasoningFormat | None]:
    if template is None:
        return None, None
    try:
        return read_template(template)
    except Unreadable as error:
        log(
            "WARNING",
            f"the response template of the model cannot be used, so its chat template says how "
            f"answers are read: {error}",
        )
        return None, None


def _named(rows: Mapping[str, T], name: str | None, option: str) -> T | None:
    if name is None or name == "none":
        return None
    if name not in rows:
        known = ", ".join(sorted(rows))
        raise ValueError(f"`{option}` must be one of auto, none, {known}. Given: {name[:64]}")
    return rows[name]
