"""JSON that a model writes, copied while it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from penstock_router.tools.reader import Kept, Malformed, Reader, Steps

Show = Callable[[str], None]

MOST_DEPTH = 64
MOST_NUMBER = 512  # characters
MOST_NAME = 256  # characters of a key that is looked at, or of a tool's name
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_SCALARS = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def nothing(piece: str) -> None:
    """Shows a text to nobody."""


def escaped(text: str) -> str:
    """A piece of text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def copy(reader: Reader, show: Show, depth: int = 0) -> Steps[None]:
    """Copy one value without the white space before it. Raises Malformed."""
    yield from reader.space()
    first = yield from reader.peek()
    if first == '"':
        yield from copy_string(reader, show)
    elif first == "{":
        yield from _copy_members(reader, show, depth, "{}")
    elif first == "[":
        yield from _copy_members(reader, show, depth, "[]")
    else:
        scalar = yield from reader.run(_SCALAR, MOST_NUMBER)
        if not _SCALARS.fullmatch(scalar):
            raise Malformed
        show(scalar)


def copy_string(reader: Reader, show: Show) -> Steps[None]:
    """Copy a string. Control characters that stand in it as they are become escapes."""
    show((yield from reader.take()))
    while True:
        yield from reader.stream(_PLAIN, show)
        character = yield from reader.take()
        if character == '"':
            return show(character)
        if character == "\\":
            show((yield from _escape(reader)))
        else:
            show(_SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}")


def _escape(reader: Reader) -> Steps[str]:
    kind = yield from reader.take()
    if kind in '"\\/bfnrt':
        return "\\" + kind
    if kind != "u":
        raise Malformed
    digits = ""
    for _ in range(4):
        digits += yield from reader.take()
    if not re.fullmatch(r"[0-9A-Fa-f]{4}", digits):
        raise Malformed
    return "\\u" + digits


def _copy_members(reader: Reader, show: Show, depth: int, brackets: str) -> Steps[None]:
    if depth == MOST_DEPTH:
        raise Malformed
    opening, closing = brackets[0], brackets[1]
    show((yield from reader.take()))
    yield from reader.space()
    if (yield from reader.peek()) == closing:
        return show((yield from reader.take()))
    while True:
        if opening == "{":
            yield from _key(reader, show)
        yield from copy(reader, show, depth + 1)
        yield from reader.space()
        separator = yield from reader.take()
        if separator == closing:
            return show(separator)
        if separator != ",":
            raise Malformed
        show(", ")


def _key(reader: Reader, show: Show) -> Steps[None]:
    yield from reader.space()
    if (yield from reader.peek()) != '"':
        raise Malformed
    yield from copy_string(reader, show)
    yield from reader.space()
    if (yield from reader.take()) != ":":
        raise Malformed
    show(": ")


def string(reader: Reader, most: int = MOST_NAME) -> Steps[str]:
    """A whole string. Raises Malformed, also for one of more than `most` characters."""
    yield from reader.space()
    if (yield from reader.peek()) != '"':
        raise Malformed
    kept = Kept(6 * most)
    yield from copy_string(reader, kept)
    try:
        return str(json.loads(kept.text))
    except ValueError:
        raise Malformed from None
