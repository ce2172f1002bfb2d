"""The folder of files and batches: what the API writes, and the process that answers batches reads.

    files/<owner>/<file id>/object.json, content
    batches/<owner>/<batch id>/object.json, input, output.jsonl, errors.jsonl, cancel

An object is what OpenAI's API shows. It is replaced as a whole, so a reader sees an old one or a
new one. A folder whose name begins with a dot is being made, and no object yet. A batch belongs to
the API until its folder is there, then to the process; a file `cancel` in it is a wish.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OBJECT = "object.json"
CONTENT = "content"  # of a file
INPUT = "input"  # of a batch: a link to the content of its file, which may be deleted meanwhile
OUTPUT = "output.jsonl"
ERRORS = "errors.jsonl"
CANCEL = "cancel"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})  # statuses of batches
ID = re.compile(r"(file|batch)-[0-9a-f]{32}")

_OF_A_KEY = b"penstock: files and batches"


def owner_of(key: str | None) -> str:
    """Whose files those of an API key are, as the name of a folder; None: there are no keys."""
    if key is None:
        return "everybody"
    return hmac.digest(key.encode("utf-8", "surrogateescape"), _OF_A_KEY, "sha256").hex()[:32]


def new_id(kind: str) -> str:
    """Of a file or a batch. Nobody guesses it."""
    return f"{kind}-{secrets.token_hex(16)}"


def write_object(folder: Path, content: dict[str, Any]) -> None:
    """Replaces the object of a folder."""
    fresh = folder / f".{OBJECT}.{os.getpid()}"
    with fresh.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / OBJECT)


def read_object(folder: Path) -> dict[str, Any] | None:
    """That of a folder; None where there is none, or it is being removed."""
    try:
        content = json.loads((folder / OBJECT).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@dataclass(frozen=True, slots=True)
class BatchFolder:
    """The folder; `root` has the mode 0700."""

    root: Path

    def of(self, kind: str, owner: str) -> Path:
        """Of the files (`file`) or batches (`batch`) of one owner."""
        return self.root / f"{kind}{'es' if kind == 'batch' else 's'}" / owner

    def owners(self, kind: str) -> list[str]:
        """Everybody who has some."""
        parent = self.of(kind, "x").parent
        try:
            return sorted(path.name for path in parent.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def entries(self, kind: str, owner: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folders of an owner, with their objects."""
        try:
            paths = list(self.of(kind, owner).iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            if ID.fullmatch(path.name) and (found := read_object(path)) is not None:
                yield path, found

    def find(self, kind: str, owner: str, name: str) -> Path | None:
        """The folder of that id; None where there is none."""
        if not ID.fullmatch(name) or not name.startswith(f"{kind}-"):
            return None
        path = self.of(kind, owner) / name
        return path if (path / OBJECT).is_file() else None
