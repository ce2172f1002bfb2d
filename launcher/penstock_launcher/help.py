"""`--help`: the options people use most and the groups; one group or option; or everything.

Where nobody reads along (`launcher --help | grep quantize`), everything is printed at once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_proto.config_file import Parser

WIDEST = 100  # columns; longer lines are hard to read
FLAGS = 26  # columns of flags before their text begins
COMMON_FLAGS = 32
MORE = "--help NAME shows a group or an option, --help all everything"
OTHERS = "what these servers call some, or have besides"


@dataclass(frozen=True, slots=True)
class Section:
    """Options that --help shows together."""

    name: str
    what: str
    actions: list[argparse.Action] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.name} ({self.what})"


class HelpfulParser(Parser):
    """Its options belong to sections, of which `--help NAME` prints one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_help=False, formatter_class=_formatter, **settings)
        self.sections: list[Section] = []
        self.common: list[tuple[str, str]] = []  # options people use most, and a few words of each
        self.others: list[str] = []  # sections of other servers' names
        self.add_argument("-h", "--help", action=_Help, nargs="?", metavar="WHAT", help=MORE)

    def section(self, name: str, what: str) -> Section:
        """A new one, at the end."""
        section = Section(name, what)
        self.sections.append(section)
        return section

    def overview(self) -> str:
        formatter = _formatter(self.prog, COMMON_FLAGS)
        formatter.add_usage(f"{self.usage}\n\n{self.description}", [], [])
        groups = [(one.name, one.what) for one in self.sections if one.name not in self.others]
        for title, rows in (
            ("most used", self.common),
            (f"groups ({MORE})", [*groups, (", ".join(self.others), OTHERS)]),
        ):
            formatter.start_section(title)
            formatter.add_arguments([_row(name, what) for name, what in rows])
            formatter.end_section()
        return formatter.format_help()

    def everything(self) -> str:
        formatter = _formatter(self.prog)
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        own = [action for action in self._actions if not any(map(_holds(action), self.sections))]
        for section in (Section("general", "about this command", own), *self.sections):
            _add(formatter, section)
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def about(self, word: str) -> str | None:
        """A section, or the options whose names hold the word; None where there is nothing."""
        formatter = _formatter(self.prog)
        for section in self.sections:
            if section.name == word:
                _add(formatter, section)
                return formatter.format_help()
        part = word.lstrip("-").replace("_", "-").lower()
        for section in self.sections:
            named = [action for action in section.actions if _is_named(action, part)]
            if named and part:
                _add(formatter, Section(section.name, section.what, named))
        return formatter.format_help() or None


class _Help(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, word: Any, flag: str | None = None) -> None:
        if word is None:
            word = "overview" if sys.stdout.isatty() else "all"
        whole = {"overview": parser.overview, "all": parser.everything}
        text = whole[word]() if word in whole else parser.about(word)
        if text is None:
            groups = ", ".join(section.name for section in parser.sections)
            parser.error(f"--help {word}: no option is called so, nor a group: {groups}, all")
        parser._print_message(text, sys.stdout)
        parser.exit()


def _formatter(prog: str, flags: int = FLAGS) -> argparse.HelpFormatter:
    width = min(shutil.get_terminal_size().columns - 2, WIDEST)
    return _Formatter(prog, max_help_position=flags, width=width)


class _Formatter(argparse.HelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        """Names of options are not broken: people search for them."""
        return textwrap.wrap(" ".join(text.split()), max(width, 20), break_on_hyphens=False)


def _add(formatter: argparse.HelpFormatter, section: Section) -> None:
    formatter.start_section(section.title)
    formatter.add_arguments(section.actions)
    formatter.end_section()


def _row(name: str, what: str) -> argparse.Action:
    """A line that looks like an option's."""
    return argparse.Action([], dest=name, metavar=name, help=what.replace("%", "%%"))


def _holds(action: argparse.Action) -> Any:
    return lambda section: action in section.actions


def _is_named(action: argparse.Action, part: str) -> bool:
    names: Sequence[str] = (*action.option_strings, action.dest.replace("_", "-"))
    return any(part in name for name in names)
