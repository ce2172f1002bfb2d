"""`--config FILE`: the options of a command in a YAML file, by the names of its command line.

Every command takes one. Values are the text of the file, read by the same rules as on the command
line, which wins: `port: 8000` is `--port 8000`, and `api-key: 0123` keeps its zero.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

LONGEST = 1 << 20  # bytes
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
NO_OPTIONS = ("--config", "--help", "--version")
HELP = "YAML file of these options, as `name: value`; the command line wins over it"
OBJECT = "JSON"  # the metavar of options that take an object
TAG = "tag:yaml.org,2002:"
TRUTHS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


class ConfigError(ValueError):
    """A sentence that names the file, and the line and the key where there is one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the file. value: a node of YAML."""

    file: str
    line: int  # from 1
    key: str
    value: yaml.Node

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def where(self) -> str:
        return f"--config {self.file}, line {self.line}: {self.key}"

    def truth(self) -> bool:
        """Raises ConfigError."""
        text = self._scalar(self.value)
        if self.value.tag != TAG + "bool":
            raise ConfigError(f"{self.where} must be true or false, not {text!r}")
        return TRUTHS[text.lower()]

    def texts(self) -> list[str]:
        """One, or those of a list. Raises ConfigError."""
        if isinstance(self.value, yaml.SequenceNode) and self.value.tag == TAG + "seq":
            return [self._scalar(node) for node in self.value.value]
        return [self._scalar(self.value)]

    def json(self) -> str:
        """Of a mapping. Raises ConfigError."""
        try:
            return json.dumps(yaml.SafeLoader("").construct_document(self.value))
        except (yaml.YAMLError, TypeError, ValueError, RecursionError):
            raise ConfigError(f"{self.where} must hold what JSON has") from None

    def _scalar(self, node: yaml.Node) -> str:
        plain = isinstance(node, yaml.ScalarNode) and node.tag.startswith(TAG)
        if not plain or node.tag == TAG + "null" or "python/" in node.tag:
            rule = "text, a number, true, false or a list of them"
            raise ConfigError(f"{self.where} must be {rule}")
        return str(node.value)


def path_of(argv: Sequence[str]) -> str | None:
    """The file that a command line names."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    with contextlib.suppress(argparse.ArgumentError):  # its own parser says what is missing
        return finder.parse_known_args(list(argv))[0].config  # type: ignore[no-any-return]
    return None


def entries(path: str) -> list[Entry]:
    """What the file holds, in its order. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise ConfigError(f"--config {path} must be at most {LONGEST} bytes long")
        root = yaml.compose(data.decode(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"--config {path} must hold options, as `port: 8000`")
    return [_entry(path, key, value) for key, value in root.value]


def _entry(path: str, key: yaml.Node, value: yaml.Node) -> Entry:
    line = key.start_mark.line + 1
    name = key.value if isinstance(key, yaml.ScalarNode) else "a list"
    if not NAME.fullmatch(name):
        raise ConfigError(f"--config {path}, line {line}: {name!r} is not the name of an option")
    return Entry(path, line, name, value)


class Parser(argparse.ArgumentParser):
    """A command's parser that takes --config as well."""

    def __init__(self, *args: Any, config_help: str = HELP, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **settings})
        self._where = ""  # what is being read, before what error() says
        # Flags that are no options, and that whoever calls parse_known_args knows all the same.
        self.passes_on: Callable[[str], bool] = lambda flag: False
        self.add_argument("--config", metavar="FILE", help=config_help)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        argv = list(sys.argv[1:] if args is None else args)
        path = path_of(argv)
        if path is None or not {"-h", "--help"}.isdisjoint(argv):
            return super().parse_known_args(argv, namespace)
        try:
            words = self._words(path, self._given(argv))
        except ConfigError as error:
            self.error(str(error))
        return super().parse_known_args([*words, *argv], namespace)

    def error(self, message: str) -> NoReturn:
        super().error(self._where + message)

    def _given(self, argv: Sequence[str]) -> set[str]:
        """What the command line says, as names of the namespace."""
        flags = self._option_string_actions
        words = argv[: argv.index("--")] if "--" in argv else argv
        names = [word.partition("=")[0] if word in flags or "=" in word else word for word in words]
        names += [word[:2] for word in words if not word.startswith("--")]  # -p3000
        return {flags[name].dest for name in names if name in flags}

    def _words(self, path: str, given: set[str]) -> list[str]:
        """The file as a command line, without what is given. Raises ConfigError."""
        words: list[str] = []
        seen: dict[str, Entry] = {}
        for entry in entries(path):
            action = self._option_string_actions.get(entry.flag)
            if action is None and self.passes_on(entry.flag):
                words += _passed_on(entry)
                continue
            if action is None or entry.flag in NO_OPTIONS:
                nearest = difflib.get_close_matches(entry.flag, self._option_string_actions, 1)
                meant = f"; did you mean {nearest[0].lstrip('-')}?" if nearest else ""
                raise ConfigError(f"{entry.where} is not an option of {self.prog}{meant}")
            said = _as_words(entry, action)
            self._check(entry, action, said)
            if said and (other := seen.setdefault(action.dest, entry)) is not entry:
                both = f"{other.key} (line {other.line}) and {entry.key}"
                raise ConfigError(f"{entry.where}: {both} say the same: give one of them")
            words += said if action.dest not in given else []
        return words

    def _check(self, entry: Entry, action: argparse.Action, words: list[str]) -> None:
        """Read an option alone, so that what is wrong with it is said of its line."""
        anything: tuple[Any, ...] = (*self._actions, *self._mutually_exclusive_groups)
        required = [one for one in anything if one.required]
        for one in required:
            one.required = False
        self._where = f"{entry.where}: "
        _, unknown = super().parse_known_args(words, argparse.Namespace())
        if unknown:
            self.error(f"{' '.join(unknown)} cannot be a value")
        self._where = ""
        for one in required:
            one.required = True


def _as_words(entry: Entry, action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return _switch(entry, action)
    if action.metavar == OBJECT and isinstance(entry.value, yaml.MappingNode):
        return [f"{entry.flag}={entry.json()}"]
    texts = entry.texts()
    if action.nargs in ("+", "*") and not getattr(action, "repeated", False):
        return [entry.flag, *texts]
    if str(action.metavar).endswith(",…"):  # one text holds several
        texts = [",".join(texts)]
    repeated = getattr(action, "repeated", isinstance(action, argparse._AppendAction))
    if len(texts) != 1 and not repeated:
        raise ConfigError(f"{entry.where} takes one value, not a list")
    return [f"{entry.flag}={text}" for text in texts]


def _passed_on(entry: Entry) -> list[str]:
    if isinstance(entry.value, yaml.MappingNode):
        return [entry.flag, entry.json()]
    if entry.value.tag == TAG + "bool":
        return [entry.flag] if entry.truth() else []
    return [entry.flag, *entry.texts()]


def _switch(entry: Entry, action: argparse.Action) -> list[str]:
    if entry.truth():
        return [entry.flag]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [flag for flag in action.option_strings if flag != entry.flag][:1]
    return []
