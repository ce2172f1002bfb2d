"""A flag of another server, and what becomes of it here; a server, as the tables describe it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from penstock_launcher.options import OPTIONS, Option
from penstock_launcher.spellings import SPELLINGS, Spelling, as_it_is

OPTION: Mapping[str, Option] = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Row:
    """One flag. option: the field of Options that it sets; None: it sets nothing here.

    value, says: as in Spelling. many: it takes all words up to the next flag.
    neutral: values that ask for what Penstock does anyway, and deserve no note.
    served: False where the user does not get what the flag asks for.
    note: completes a sentence that begins with the flag; empty where nothing differs.
    """

    flags: tuple[str, ...]
    option: str | None = None
    value: Callable[[str], str | None] = as_it_is
    says: str | None = None
    takes_value: bool = True
    many: bool = False
    neutral: tuple[str, ...] = ()
    served: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A thing that differs."""

    subject: str
    text: str
    served: bool = True

    def __str__(self) -> str:
        return (
            f"{self.subject} {self.text}"
            if self.served
            else f"NOT SERVED: {self.subject} {self.text}"
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """A default that differs. there, here: what it is, in words. restored: the text that makes the
    option what it was there, or comes as near as it goes. note: completes a sentence that begins
    with the option, for who migrates; empty where nobody need know before it is looked up."""

    there: str
    here: str
    restored: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """programs: the words that start it; the arguments follow. added: options whose default it has
    otherwise and that are written out. defaults: limits that differ, by option, which count where
    the option was not given. variables: its names of options in the environment."""

    name: str
    image: re.Pattern[str]
    programs: tuple[re.Pattern[str], ...]
    rows: tuple[Row, ...]
    added: Mapping[str, str]
    defaults: Mapping[str, Limit]
    variables: Mapping[str, str]
    without_meaning: re.Pattern[str]
    cache: str  # where its image keeps models

    def row(self, flag: str) -> Row | None:
        """vLLM takes --max_model_len for --max-model-len."""
        flag = flag.replace("_", "-")
        return next((row for row in self.rows if flag in row.flags), None)


def image(name: str) -> re.Pattern[str]:
    """References to images of this name (an expression): with a repository, a tag or both, as the
    bare word is also the name of a folder or package."""
    tag = r"[:@][^\s/]\S*"
    return re.compile(rf"(?:\w[\w.-]*(?::\d+)?/)+{name}(?:{tag})?|{name}{tag}")


def spelled(server: str) -> Iterable[Row]:
    """The flags that the launcher takes as well."""
    for one in SPELLINGS:
        if server in one.servers:
            yield _of(one)


def _of(one: Spelling) -> Row:
    return Row(
        one.flags,
        one.option,
        one.value,
        one.says,
        takes_value=one.says is None,
        note=one.note,
    )


def same(flags: str, notes: Mapping[str, str] | None = None) -> Iterable[Row]:
    """Flags that Penstock has under the same name."""
    for flag in flags.split():
        option = OPTION[flag.removeprefix("--").replace("-", "_")]
        short = (option.short,) if option.short else ()
        yield Row(
            (flag, *short),
            option.name,
            takes_value=option.kind.takes_value,
            many=option.kind.repeated,
            says=None if option.kind.takes_value else "true",
            note=(notes or {}).get(flag, ""),
        )


def without_effect(note: str, flags: str) -> Iterable[Row]:
    """Flags that are left out; those that take a value end in `=`, with several in `=*`."""
    yield from _left_out(note, flags, served=True)


def not_served(note: str, flags: str, *neutral: str) -> Iterable[Row]:
    yield from _left_out(note, flags, served=False, neutral=neutral)


def _left_out(note: str, flags: str, served: bool, neutral: tuple[str, ...] = ()) -> Iterable[Row]:
    for flag in flags.split():
        name, mark, many = flag.partition("=")
        yield Row(
            tuple(name.split("|")),
            takes_value=bool(mark),
            many=bool(many),
            served=served,
            neutral=neutral,
            note=note,
        )
