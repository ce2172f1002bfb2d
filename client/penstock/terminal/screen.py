"""What a person sees: text as it comes, notes, errors; colours where there are any."""

from __future__ import annotations

import os
import sys

BOLD, DIM, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
# Control characters, which a model may write and which would drive the terminal.
CODES = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
CONTROLS = {code: repr(chr(code))[1:-1] for code in CODES}


class Screen:
    """Standard output. A pipe gets the text alone, as it is."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colours = self._terminal and not dumb
        self._style = PLAIN  # of what was written last

    def write(self, text: str, style: str = PLAIN) -> None:
        """A piece of an answer."""
        if self._terminal:
            text = text.translate(CONTROLS)
        if self._colours and style != self._style:
            text = (PLAIN if style == PLAIN else PLAIN + style) + text
            self._style = style
        print(text, end="", flush=True)

    def end(self) -> None:
        """The line, and the colour."""
        self.write("\n")

    def note(self, text: str, style: str = DIM) -> None:
        """A line about the conversation."""
        self.write(text, style)
        self.end()

    def prompt(self, text: str) -> str:
        """For input(): marked, so that line editing knows how wide it is."""
        if not self._colours:
            return text
        return f"\x01{BOLD}\x02{text.rstrip()}\x01{PLAIN}\x02 "
