"""Fields of structural tags: what they must be, and how that is said.

All raise ValueError with the end of a sentence that begins with the request's field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

MAX_TAGS = 256
MAX_CHARACTERS = 1024  # of a beginning, an end or a trigger
MAX_REPEATS = 4096

Shape = Mapping[str, Any]


@dataclass(frozen=True)
class Ends:
    """What a part ends with: one of some texts, or a token. Neither: the text ends behind it.

    known: false where something else follows, which free text could swallow.
    """

    texts: tuple[str, ...] = ()
    token: str = ""  # as the grammar writes it
    known: bool = True

    @property
    def rule(self) -> str:
        """Behind what has an end of its own."""
        options = [literal(text) for text in self.texts]
        return self.token or (f"({' | '.join(options)})" if options else "")


def begin_of(shape: Shape) -> Ends | None:
    """What a format begins with; None where that is not one string or token."""
    match shape.get("type"):
        case "const_string":
            return Ends((text(shape.get("value"), "value"),))
        case "token":
            return Ends(token=token(shape.get("token")))
        case "tag":
            return marker(shape.get("begin"), "begin")
    return None


def marker(value: object, name: str) -> Ends:
    """A beginning: a text or a format of the type `token`."""
    if isinstance(value, Mapping):
        return Ends(token=token(value.get("token")))
    return Ends((text(value, name),))


def end_of(tag: Shape) -> Ends | None:
    """The end of a tag, which may have none."""
    end = tag.get("end")
    if end in (None, "", [], [""]):
        return None
    if isinstance(end, list):
        return Ends(tuple(text(one, "end") for one in items(end, "end")))
    return marker(end, "end")


def token(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31:
        return f"<[{value}]>"
    if isinstance(value, str) and re.fullmatch(r"<[^<>\s\[\]]{1,64}>", value):
        return value
    raise ValueError("must name tokens by their ids, or special ones as `<…>`")


def check_tokens(value: object) -> None:
    """Tokens that free text does not hold: special ones, which have no place in it in any case."""
    for one in items(value or [], "exclude_tokens", least=0):
        if not isinstance(one, str):
            raise ValueError("must name in `exclude_tokens` special tokens as `<…>`")
        token(one)


def items(value: object, name: str, least: int = 1) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise ValueError(f"must have `{name}`, a list that is not empty")
    if len(value) > MAX_TAGS:
        raise ValueError(f"must have at most {MAX_TAGS} `{name}`. Given: {len(value)}")
    return value


def objects(value: object, name: str) -> Sequence[Shape]:
    if not all(isinstance(one, Mapping) for one in items(value, name)):
        raise ValueError(f"must have `{name}`, a list of objects that is not empty")
    return items(value, name)


def count(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_REPEATS:
        raise ValueError(f"must have in `{name}` a number from 0 to {MAX_REPEATS}")
    return value


def text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHARACTERS:
        raise ValueError(f"must have in `{name}` a string of 1 to {MAX_CHARACTERS} characters")
    return value


def quoted(value: object, name: str) -> str:
    """A text as the grammar writes it."""
    return literal(text(value, name))


def literal(value: str) -> str:
    """A string of a grammar; nothing for an empty one."""
    return orjson.dumps(value).decode() if value else ""


def slashes(pattern: str) -> str:
    """An expression as it stands between slashes."""
    return pattern.replace("/", r"\/").replace("\n", r"\n")
