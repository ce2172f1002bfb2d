"""What the text of a sequence is held to, while it is generated."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


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
