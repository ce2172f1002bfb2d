"""`--config FILE`: options in a YAML file, by the names of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import OPTIONS
from penstock_launcher.spellings import SPELLINGS
from penstock_launcher.unsupported import UNSUPPORTED

LONGEST = 1 << 20  # bytes
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
SWITCHES = {
    *(option.flag for option in OPTIONS if not option.kind.takes_value),
    *(flag for spelling in SPELLINGS if spelling.says is not None for flag in spelling.flags),
    *(refused.flag for refused in UNSUPPORTED if not refused.takes_value),
}


def arguments(path: str) -> list[str]:
    """The file as a command line. Raises LauncherError that names the file and what is wrong."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise LauncherError(f"--config {path} must be at most {LONGEST} bytes long")
        options = yaml.safe_load(text)
    except OSError as error:
        raise LauncherError(f"--config {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise LauncherError(f"--config {path} is not YAML: {said}") from None
    if options is None:
        return []
    if not isinstance(options, dict):
        raise LauncherError(f"--config {path} must hold options, as `port: 8000`")
    return [word for name, value in options.items() for word in _words(path, name, value)]


def _words(path: str, name: Any, value: Any) -> Iterator[str]:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == "config":
        raise LauncherError(f"--config {path}: {name!r} is not the name of an option")
    flag = "--" + name.replace("_", "-")
    if flag in SWITCHES:
        if not isinstance(value, bool):
            raise LauncherError(f"--config {path}: {name} must be true or false, not {value!r}")
        yield from [flag] if value else []
        return
    for one in value if isinstance(value, list) else [value]:
        yield f"{flag}={_text(path, name, one)}"


def _text(path: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    rule = "text, a number, true, false or a list of them"
    raise LauncherError(f"--config {path}: {name} must be {rule}, not {value!r}")
