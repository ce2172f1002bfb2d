"""Reading text that comes in pieces, as if all of it were there.

Parsers are generators: where they need more than has come, they yield. Everything that they decide
depends on the text alone and never on where a piece ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]  # ends with a T, and pauses for more text

_SPACE = re.compile(r"\s*")


class Malformed(Exception):
    """The text is not what its format says."""


class Literals:
    """Some strings that are looked for at once. Those that come first win, then longer ones."""

    __slots__ = ("_firsts", "_longest", "_pattern", "_prefixes")

    def __init__(self, literals: Sequence[str]) -> None:
        ordered = sorted((literal for literal in set(literals) if literal), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._prefixes = frozenset(one[:n] for one in ordered for n in range(1, len(one)))
        self._firsts = frozenset(one[0] for one in ordered)
        self._longest = max(map(len, ordered), default=0)

    def find(self, text: str, start: int) -> re.Match[str] | None:
        """The first one."""
        return self._pattern.search(text, start)

    def at(self, text: str, start: int) -> re.Match[str] | None:
        """The one that stands there."""
        return self._pattern.match(text, start)

    def begun(self, text: str, start: int) -> int:
        """Where one may begin that the text ends within; its length where there is none."""
        for place in range(max(start, len(text) - self._longest + 1), len(text)):
            if text[place] in self._firsts and text[place:] in self._prefixes:
                return place
        return len(text)


class Kept:
    """Collects pieces. Raises Malformed for more than `most` characters."""

    __slots__ = ("_left", "_pieces")

    def __init__(self, most: int) -> None:
        self._left = most
        self._pieces: list[str] = []

    def __call__(self, piece: str) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise Malformed
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        """All of them."""
        return "".join(self._pieces)


class Reader:
    """Text that has come and was not read yet.

    `mark` keeps what follows, so that `rewind` can read it again as something else.
    """

    __slots__ = ("_at", "_mark", "_text", "ended")

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._mark: int | None = None
        self.ended = False

    def feed(self, text: str) -> None:
        """More text."""
        keep = self._at if self._mark is None else self._mark
        self._text = self._text[keep:] + text
        self._at -= keep
        if self._mark is not None:
            self._mark = 0

    def mark(self) -> None:
        """Keep what is read from here on."""
        self._mark = self._at

    def forget(self) -> None:
        """What was read need not be kept any longer."""
        self._mark = None

    def rewind(self) -> None:
        """Go back to the mark."""
        assert self._mark is not None
        self._at, self._mark = self._mark, None

    def peek(self) -> Steps[str]:
        """The next character; empty at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def take(self) -> Steps[str]:
        """The next character. Raises Malformed at the end."""
        character = yield from self.peek()
        if not character:
            raise Malformed
        self._at += 1
        return character

    def space(self) -> Steps[None]:
        """Read white space."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or self.ended:
                return
            yield

    def literal(self, literals: Literals) -> Steps[str]:
        """Read one of them if it stands here; else nothing."""
        while not self.ended and literals.begun(self._text, self._at) == self._at:
            yield
        match = literals.at(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def until(self, literals: Literals, show: Callable[[str], None]) -> Steps[str]:
        """Read up to and with the first of them, and show what stands before it; empty where the
        text ends without one."""
        while True:
            text, at = self._text, self._at
            match = literals.find(text, at)
            begun = len(text) if self.ended else literals.begun(text, at)
            if match is not None and match.start() < begun:
                self._at = match.end()
                if match.start() > at:
                    show(text[at : match.start()])
                return match[0]
            if begun > at:
                self._at = begun
                show(text[at:begun])
            if self.ended:
                return ""
            yield

    def collect(self, literals: Literals, most: int) -> Steps[tuple[str, str]]:
        """The text before the first of them, and which it is. Raises Malformed where the text ends
        without one, or holds more than `most` characters before it."""
        kept = Kept(most)
        found = yield from self.until(literals, kept)
        if not found:
            raise Malformed
        return kept.text, found

    def stream(self, pattern: re.Pattern[str], show: Callable[[str], None]) -> Steps[None]:
        """Show all characters from here on that the pattern, of single characters, matches."""
        while True:
            match = pattern.match(self._text, self._at)
            assert match is not None
            if match.end() > self._at:
                self._at = match.end()
                show(match[0])
            if self._at < len(self._text) or self.ended:
                return
            yield

    def run(self, pattern: re.Pattern[str], most: int) -> Steps[str]:
        """The same, as one string. Raises Malformed for more than `most` characters."""
        kept = Kept(most)
        yield from self.stream(pattern, kept)
        return kept.text
