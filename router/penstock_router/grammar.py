"""What the text of a sequence is held to, while it is generated."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

import orjson


class GrammarKind(enum.StrEnum):
    """In which language a grammar is written."""

    JSON_SCHEMA = "json_schema"  # `x-guidance` in it says how white space is written
    REGEX = "regex"  # of the whole text
    GBNF = "gbnf"  # llama.cpp's; converted to Lark's before it is compiled
    LARK = "lark"  # as llguidance reads it: `start` is the first rule, `<name>` a special token


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that the shards compile. Equal ones are compiled once."""

    kind: GrammarKind
    text: str
    asked_by: str = field(default="", compare=False)  # the client's field, for errors


def behind(token_id: int, grammar: Grammar) -> Grammar:
    """Free text up to a special token, and from the exact token behind it the grammar."""
    return _lark(f"start: FREE <[{token_id}]> rest", "FREE: /(.|\\n)*/", grammar)


def behind_text(marker: str, grammar: Grammar) -> Grammar:
    """Free text up to and with a marker that is ordinary text, and behind it the grammar.

    To the byte: where a token holds the end of the marker and more, the grammar holds for the rest.
    """
    quoted = orjson.dumps(marker).decode()
    return _lark("start: free rest", f"free[suffix={quoted}]: /(.|\\n)*/", grammar)


def _lark(start: str, free: str, rest: Grammar) -> Grammar:
    return Grammar(GrammarKind.LARK, f"{start}\n{free}\n{_rest(rest)}")


def _rest(grammar: Grammar) -> str:
    """Another grammar as the rule `rest`."""
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        # White space in front, as models write it behind what they thought.
        return f"rest: BLANK? json\nBLANK: /[ \\t\\r\\n]{{1,4}}/\njson: %json {grammar.text}\n"
    if grammar.kind is GrammarKind.REGEX:
        pattern = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", grammar.text).replace("\n", "\\n")
        return f"rest: /{pattern}/\n"
    return f"rest: %lark {{\n{grammar.text}\n}}\n"
