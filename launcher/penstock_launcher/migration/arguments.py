"""The arguments of another server, translated one flag at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock_launcher.kinds import json_object
from penstock_launcher.migration.rows import OPTION, Note, Row, Server
from penstock_launcher.variables import broken_rule

OBJECT = json_object().metavar


@dataclass(slots=True)
class Translation:
    """Options with the texts that they get (none: a switch), in the order in which they came."""

    server: Server
    texts: dict[str, list[str]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def add_defaults(self, given: Sequence[str] = ()) -> None:
        """What the other server does where nobody says otherwise; `given`: in the environment."""
        for name, text in self.server.added.items():
            if name not in given:
                self.texts.setdefault(name, [text])
        for name, limit in self.server.defaults.items():
            if limit.note and name not in self.texts and name not in given:
                self.notes.append(Note(OPTION[name].flag, limit.note))

    def words(self) -> list[str]:
        """The command line of the launcher."""
        return [word for name, texts in self.texts.items() for word in _words(name, texts)]

    def take(self, flag: str, row: Row, values: Sequence[str]) -> None:
        """One flag, with what was given to it."""
        if values and all(value.lower() in row.neutral for value in values):
            return
        option = OPTION[row.option] if row.option is not None else None
        if row.note:
            self.notes.append(Note(" ".join((flag, *_shown(row, values))), row.note, row.served))
        if option is None:
            return
        if row.many and not option.kind.repeated:
            values = [",".join(values)]
        texts = [row.says] if row.says is not None else [row.value(value) for value in values]
        for text in texts:
            if text is not None:
                self._set(flag, option.name, text)

    def _set(self, flag: str, name: str, text: str) -> None:
        option = OPTION[name]
        if "$" not in text:  # else a shell or Compose puts the value in later
            try:
                option.kind.parse(text)
            except ValueError:
                rule = f"{option.flag} {broken_rule(option, text)}"
                self.notes.append(Note(flag, f"was left out: {rule}", served=False))
                return
        if option.kind.metavar == OBJECT and name in self.texts:
            try:
                text = _merged(self.texts[name][0], text)
            except ValueError:
                note = f"was left out: a variable cannot be joined to the rest of {option.flag}"
                self.notes.append(Note(flag, note, served=False))
                return
        if not option.kind.repeated:
            self.texts.pop(name, None)
        self.texts.setdefault(name, []).append(text)


def translate(server: Server, argv: Sequence[str]) -> Translation:
    """Never fails: what is unknown or cannot be had is a note."""
    result = Translation(server)
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            _positional(result, word)
            continue
        flag, mark, text = word.partition("=")
        row = server.row(flag)
        if row is None:
            values = ["=" + text] if mark else _until_flag(words)
            note = f"is no flag of {server.name} that Penstock knows, and was left out"
            result.notes.append(Note(" ".join((flag, *values)), note, served=False))
        elif not row.takes_value:
            result.take(flag, row, [])
        elif mark:
            result.take(flag, row, [text])
        elif row.many:
            result.take(flag, row, _until_flag(words))
        elif words:
            result.take(flag, row, [words.pop(0)])
        else:
            result.notes.append(Note(flag, "has no value, and was left out", served=False))
    return result


def _merged(first: str, second: str) -> str:
    """Two JSON objects as one; the second wins."""
    return json.dumps({**json.loads(first), **json.loads(second)})


def _positional(result: Translation, word: str) -> None:
    if "model_id" in result.texts:
        result.notes.append(Note(word, "belongs to no flag, and was left out", served=False))
    else:
        result.texts["model_id"] = [word]


def _until_flag(words: list[str]) -> list[str]:
    values = []
    while words and not words[0].startswith("--"):
        values.append(words.pop(0))
    return values


def _shown(row: Row, values: Sequence[str]) -> Sequence[str]:
    secret = row.option is not None and OPTION[row.option].secret
    return ["***"] * len(values) if secret else values


def _words(name: str, texts: Sequence[str]) -> list[str]:
    option = OPTION[name]
    if option.kind.takes_value:
        return [word for text in texts for word in (option.flag, text)]
    return [option.flag] if option.kind.parse(texts[-1]) else []
