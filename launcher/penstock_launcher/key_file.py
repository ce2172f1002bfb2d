"""A file of API keys: one a line, or, where its name ends in .toml, tables with names and limits.

[[key]]
name = "team-a"                # for metrics and the log; needed
key = "…"                      # or sha256 = "…": 64 hexadecimal digits
requests-per-minute = 600      # each limit may be left out
tokens-per-minute = 200_000
concurrent-requests = 16
max-priority = 0
salt = "…"                     # keys with the same share cached prefixes
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock_launcher.errors import LauncherError

# A key as the router gets it: its text, or an object with the fields of `ApiKey` in penstock_proto.
KeyItem = str | Mapping[str, Any]

UNNAMED = "unnamed"  # what the router calls keys without a name
MOST_BYTES = 512 * 1024  # what the router reads of a pipe is twice that
_ODD = "nested too deeply, or a number of too many digits"  # what the parser gives no place for
LONGEST_KEY = 4096  # characters; a header holds 8,190


def read_keys(path: Path) -> list[KeyItem]:
    """The keys of a file. A file without keys would open the server to all.

    Raises LauncherError, which holds nothing of what the file says but names and places.
    """
    name = f"--api-key-file {path}"
    data = _content(path, name)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise LauncherError(f"{name} is not text in UTF-8") from None
    keys = (_of_tables if path.suffix == ".toml" else _of_lines)(text, name)
    if not keys:
        raise LauncherError(f"{name} holds no key")
    return keys


def _content(path: Path, name: str) -> bytes:
    """Neither waits for a pipe's writer nor takes more memory than a file of keys may."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LauncherError(f"{name} is not a file")
            data = file.read(MOST_BYTES + 1)
    except IsADirectoryError:
        raise LauncherError(f"{name} is not a file") from None
    except OSError as error:
        raise LauncherError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise LauncherError(f"{name} must have at most {MOST_BYTES} bytes")
    return data


def _of_lines(text: str, name: str) -> list[KeyItem]:
    """One key a line; empty lines are none."""
    keys = [line.strip() for line in text.splitlines()]
    for number, key in enumerate(keys, start=1):
        if not key.isprintable():
            raise LauncherError(f"{name}: line {number} must be printable text")
    return [key for key in keys if key]


def _of_tables(text: str, name: str) -> list[KeyItem]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or an endless number
        place = re.search(r"at line \d+, column \d+|at end of document", str(error))
        raise LauncherError(f"{name} is no TOML ({place[0] if place else _ODD})") from None
    tables = document.pop("key", [])
    if document:
        raise LauncherError(f"{name} may hold tables [[key]] and nothing else")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise LauncherError(f"{name}: `key` must be tables, [[key]]")
    keys = [_of_table(table, f"{name}: key {place}") for place, table in enumerate(tables, 1)]
    names = Counter(key["name"] for key in keys)
    if twice := [one for one, times in names.items() if times > 1]:
        raise LauncherError(f"{name}: there is more than one key named {', '.join(sorted(twice))}")
    return [*keys]


def _of_table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if unknown := table.keys() - _FIELDS.keys():
        raise LauncherError(f"{name} has fields that do not exist: {len(unknown)} beside {_KNOWN}")
    if "name" not in table:
        raise LauncherError(f"{name} must have a `name`")
    values = {}
    for field, value in table.items():
        rule, fits = _FIELDS[field]
        if not fits(value):
            raise LauncherError(f"{name}: `{field}` must be {rule}")
        values[field.replace("-", "_")] = value
    if ("key" in values) == ("sha256" in values):
        raise LauncherError(f"{name} must have either `key` or `sha256`")
    if "sha256" in values:
        values["sha256"] = values["sha256"].lower()
    return values


Fits = Callable[[object], bool]


def _pattern(rule: str, pattern: str) -> tuple[str, Fits]:
    compiled = re.compile(pattern)
    return rule, lambda value: isinstance(value, str) and bool(compiled.fullmatch(value))


def _text(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_KEY:
        return False
    return value.isprintable() and value == value.strip()


def _whole(least: int, most: int) -> tuple[str, Fits]:
    return (
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


_TEXT = f"printable text of 1 to {LONGEST_KEY} characters, without spaces around it", _text
_FIELDS: dict[str, tuple[str, Fits]] = {
    "name": _pattern(
        f"1 to 64 characters of A-Z a-z 0-9 . _ -, and not `{UNNAMED}`",
        rf"(?!{UNNAMED}$)[A-Za-z0-9._-]{{1,64}}",
    ),
    "key": _TEXT,
    "sha256": _pattern("64 hexadecimal digits", r"[0-9a-fA-F]{64}"),
    "salt": _TEXT,
    "requests-per-minute": _whole(1, 10**6),
    "tokens-per-minute": _whole(1, 10**12),
    "concurrent-requests": _whole(1, 10**5),
    "max-priority": _whole(-50, 100),
}
_KNOWN = ", ".join(f"`{field}`" for field in _FIELDS)
