"""Grammars of llguidance's Lark dialect, put together rule by rule.

A lexeme is as long as it can be, so free text cannot be followed by text that it may hold itself.
Where a marker is text, a lexeme that ends at once (`lazy`) holds both. Special tokens are never
part of a lexeme.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import BadGrammar

# Characters of all bodies, those that are equal counted each time. Choices within choices, and
# references that each bring all definitions along, make gigabytes of a schema of 64 KB.
MOST_WRITTEN = 4 << 20

_SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


class Rules:
    """Rules and terminals by name; equal ones are made once."""

    def __init__(self, token_ids: Mapping[str, int]) -> None:
        """token_ids: of the characters that stand for tokens."""
        self._ids = token_ids
        self._lines: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._written = 0

    def text(self, start: str) -> str:
        """The grammar."""
        return "\n".join([f"start: {start}", *(f"{n}: {b}" for n, b in self._lines.items()), ""])

    def rule(self, body: str) -> str:
        """The name of a rule with this body."""
        return self._named(body, "r")

    def terminal(self, body: str) -> str:
        """The name of a lexeme with this body."""
        return self._named(body, "T")

    def lazy(self, pattern: str) -> str:
        """A lexeme that ends as soon as it can. pattern: of terminals."""
        name = self._named(pattern, "T")
        lazy = f"l{name[1:]}"
        self._lines.setdefault(f"{lazy}[lazy]", name)
        return lazy

    def literal(self, text: str) -> str:
        """A string, in which characters stand for tokens; empty for an empty one."""
        self._count(text)
        pieces = []
        for piece in re.split("([\ud800-\udfff])", text):
            if piece in self._ids:
                pieces.append(f"<[{self._ids[piece]}]>")
            elif piece:
                pieces.append(json.dumps(piece, ensure_ascii=False))
        return " ".join(pieces)

    def free(self, without: Sequence[str] = (), end: str = "") -> str:
        """Text that holds none of some strings, perhaps none at all. end: what it ends with."""
        pattern = f"/(?s:.{'*' if end else '+'}){escape(end)}/"
        name = self.terminal(" & ".join([pattern, *map(lacks, without)]))
        return name if end else f"{name}?"

    def up_to(self, marker: str, without: Sequence[str] = (), most: int | None = None) -> str:
        """Text that holds none of some strings, up to and with a marker. most: tokens that it may
        have before a marker that is a token."""
        head = re.split("[\ud800-\udfff]", marker)[0]
        rest = self.literal(marker[len(head) :])
        if most is not None and not head:
            return f"{self._few(most)} {rest}"
        if rest:  # a token ends the text that stands before it
            return f"{self.free(without, head)} {rest}"
        return self.lazy(f"/(?s:.*){escape(head)}/" + "".join(f" & {lacks(w)}" for w in without))

    def _few(self, most: int) -> str:
        """Text of so many tokens at most; then only what follows it is left."""
        if not most:
            return ""
        text = self.free().removesuffix("?")
        few = f"m{text[1:]}"
        self._lines.setdefault(f"{few}[max_tokens={most}]", text)
        return f"{few}?"

    def json(self, schema: Any, strict: bool = False) -> str:
        """A value of a schema, as models write JSON: on one line."""
        guidance = {**_SEPARATORS, **({} if strict else {"coerce_one_of": True})}
        text = json.dumps(
            {**schema, "x-guidance": guidance} if isinstance(schema, dict) else schema,
            ensure_ascii=False,
        )
        return self.rule(f"%json {text}")

    def grammar(self, grammar: Grammar) -> str:
        """Another grammar."""
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                return self.rule(f"%json {grammar.text}")
            case GrammarKind.REGEX:
                pattern = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", grammar.text)
                return self.terminal(f"/{pattern}/".replace("\n", "\\n"))
            case _:  # Lark's, as others are converted to
                return self.rule(f"%lark {{\n{grammar.text}\n}}")

    def choice(self, options: Sequence[str]) -> str:
        """One of them."""
        return options[0] if len(options) == 1 else self.rule(" | ".join(options))

    def listed(self, items: Sequence[tuple[str, bool]], separator: str) -> str:
        """Some items in their order, and whether each must be there, with separators between."""
        first, following = '""', '""'
        comma = self.literal(separator)
        for item, required in reversed(items):
            begins, goes_on = f"{item} {following}", f"{comma} {item} {following}"
            if not required:
                begins, goes_on = f"{begins} | {first}", f"{goes_on} | {following}"
            first, following = self.rule(begins), self.rule(goes_on)
        return first

    def recursive(self, key: str, body: Callable[[str], str]) -> str:
        """A rule that may name itself. key: what is the same for equal ones."""
        self._count(key)
        if key not in self._names:
            self._names[key] = name = f"c{len(self._names)}"
            self._lines[name] = body(name)
        return self._names[key]

    def _named(self, body: str, kind: str) -> str:
        self._count(body)
        if body not in self._names:
            self._names[body] = f"{kind}{len(self._names)}"
            self._lines[self._names[body]] = body
        return self._names[body]

    def _count(self, text: str) -> None:
        """Raises BadGrammar for more than a grammar may be made of."""
        self._written += 1 + len(text)
        if self._written > MOST_WRITTEN:
            raise BadGrammar(
                f"the schemas of `tools` come to a grammar of more than {MOST_WRITTEN} characters"
            )


def escape(text: str) -> str:
    """A string within a regular expression of the dialect."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def lacks(text: str) -> str:
    """Terminal of all that does not hold a string."""
    return f"~/(?s:.*){escape(text)}(?s:.*)/"
