"""Literals of Python and of Gemma's notation as JSON, read while they come and never evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from penstock_router.tools.jsontext import MOST_DEPTH, MOST_NAME, MOST_NUMBER, escaped
from penstock_router.tools.reader import Literals, Malformed, Reader, Steps

Show = Callable[[str], None]

NAME = re.compile(r"[A-Za-z0-9_.-]*")
_KEY = re.compile(r"\w*")
_WORD = re.compile(r"[-+.\w]*")
_WORDS = {"True": "true", "False": "false", "None": "null"}
_WORDS |= {word: word for word in _WORDS.values()}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "",
            "\\": "\\", "'": "'", '"': '"', "/": "/"}  # fmt: skip
_CODES = {"x": 2, "u": 4, "U": 8}


def python_call(reader: Reader, start: Callable[[str], Any], show: Show) -> Steps[None]:
    """`f(a=1, b="x")`. start: is given the name. show: pieces of the arguments."""
    name = yield from reader.run(NAME, MOST_NAME)
    if not name or (yield from reader.take()) != "(":
        raise Malformed
    start(name)
    show("{")
    count = 0
    while True:
        yield from reader.space()
        if (yield from reader.peek()) == ")":
            break
        key = yield from reader.run(_KEY, MOST_NAME)
        yield from reader.space()
        if not key or (yield from reader.take()) != "=":
            raise Malformed
        show((", " if count else "") + json.dumps(key, ensure_ascii=False) + ": ")
        count += 1
        yield from python_value(reader, show)
        yield from reader.space()
        if (yield from reader.peek()) != ",":
            break
        yield from reader.take()
    if (yield from reader.take()) != ")":
        raise Malformed
    show("}")


def python_value(reader: Reader, show: Show, depth: int = 0) -> Steps[None]:
    """One literal."""
    if depth > MOST_DEPTH:
        raise Malformed
    yield from reader.space()
    first = yield from reader.peek()
    if first in _PLAIN:
        show('"')
        yield from _python_string(reader, lambda piece: show(escaped(piece)))
        show('"')
    elif first in ("[", "("):
        yield from _python_list(reader, show, depth)
    elif first == "{":
        yield from _python_dict(reader, show, depth)
    else:
        show(scalar((yield from reader.run(_WORD, MOST_NUMBER))))


def scalar(word: str) -> str:
    """A number or a constant as JSON."""
    if word in _WORDS:
        return _WORDS[word]
    if not _NUMBER.fullmatch(word):
        raise Malformed
    return word


def _python_string(reader: Reader, show: Show) -> Steps[None]:
    quote = yield from reader.take()
    while True:
        yield from reader.stream(_PLAIN[quote], show)
        if (yield from reader.take()) == quote:
            return
        kind = yield from reader.take()
        if kind in _CODES:
            digits = ""
            for _ in range(_CODES[kind]):
                digits += yield from reader.take()
            show(_character(digits))
        else:
            show(_ESCAPES.get(kind, "\\" + kind))


def _character(digits: str) -> str:
    try:
        code = int(digits, 16)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    except (ValueError, OverflowError):
        raise Malformed from None


def _python_list(reader: Reader, show: Show, depth: int) -> Steps[None]:
    closing = {"[": "]", "(": ")"}[(yield from reader.take())]
    yield from _items(reader, show, closing, "[]", lambda: python_value(reader, show, depth + 1))


def _python_dict(reader: Reader, show: Show, depth: int) -> Steps[None]:
    def item() -> Steps[None]:
        if (yield from reader.peek()) not in _PLAIN:
            raise Malformed
        show('"')
        yield from _python_string(reader, lambda piece: show(escaped(piece)))
        show('": ')
        yield from reader.space()
        if (yield from reader.take()) != ":":
            raise Malformed
        yield from python_value(reader, show, depth + 1)

    yield from reader.take()
    yield from _items(reader, show, "}", "{}", item)


def _items(
    reader: Reader, show: Show, closing: str, brackets: str, item: Callable[[], Steps[None]]
) -> Steps[None]:
    """What stands between brackets, with commas between; one more at the end is passed over."""
    show(brackets[0])
    count = 0
    while True:
        yield from reader.space()
        if (yield from reader.peek()) == closing:
            break
        if count:
            show(", ")
        count += 1
        yield from item()
        yield from reader.space()
        if (yield from reader.peek()) != ",":
            break
        yield from reader.take()
    if (yield from reader.take()) != closing:
        raise Malformed
    show(brackets[1])


class Notation:
    """Gemma's: `{k:<d>text<d>,n:42,o:{...},a:[...]}`."""

    def __init__(self, delimiter: Literals) -> None:
        self._delimiter = delimiter

    def object(self, reader: Reader, show: Show, depth: int = 0) -> Steps[None]:
        """An object. Raises Malformed."""

        def item() -> Steps[None]:
            key = yield from reader.run(_KEY, MOST_NAME)
            if not key:
                yield from self._text(reader, show)
            else:
                show(json.dumps(key, ensure_ascii=False))
            show(": ")
            yield from reader.space()
            if (yield from reader.take()) != ":":
                raise Malformed
            yield from self.value(reader, show, depth + 1)

        if (yield from reader.take()) != "{" or depth == MOST_DEPTH:
            raise Malformed
        yield from _items(reader, show, "}", "{}", item)

    def value(self, reader: Reader, show: Show, depth: int) -> Steps[None]:
        """A value. Raises Malformed."""
        yield from reader.space()
        first = yield from reader.peek()
        if first == "{":
            yield from self.object(reader, show, depth)
        elif first == "[" and depth < MOST_DEPTH:
            yield from reader.take()
            items = _items(reader, show, "]", "[]", lambda: self.value(reader, show, depth + 1))
            yield from items
        elif _WORD.match(first) and first and _WORD.fullmatch(first):
            show(scalar((yield from reader.run(_WORD, MOST_NUMBER))))
        else:
            yield from self._text(reader, show)

    def _text(self, reader: Reader, show: Show) -> Steps[None]:
        if not (yield from reader.literal(self._delimiter)):
            raise Malformed
        show('"')
        if not (yield from reader.until(self._delimiter, lambda piece: show(escaped(piece)))):
            raise Malformed
        show('"')
