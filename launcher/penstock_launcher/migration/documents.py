"""Compose files, Kubernetes manifests and Helm values: YAML in which containers are described."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from penstock_launcher.migration.arguments import translate
from penstock_launcher.migration.commands import (
    IMAGE,
    SERVERS,
    Migrated,
    cache_note,
    find_program,
    holds_cache,
)
from penstock_launcher.migration.environment import option_of, rename
from penstock_launcher.migration.rows import Note, Server

SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash")


def migrate_yaml(text: str) -> Migrated | None:
    """The documents with their containers changed; None: not YAML, or without such a container.

    Comments and anchors are lost.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        return None
    notes: list[Note] = []
    found = 0
    for document in documents:
        for box in _containers(document):
            found += 1
            notes += _migrate_container(box, manifest="apiVersion" in document)
    if not found:
        return None
    return Migrated(yaml.safe_dump_all(documents, sort_keys=False, width=1000).rstrip("\n"), notes)


def _containers(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping that describes a container of one of the servers."""
    if isinstance(node, dict):
        if _server(node) is not None:
            yield node
        for value in node.values():
            yield from _containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from _containers(value)


def _server(box: Mapping[str, Any]) -> Server | None:
    image = box.get("image")
    if not isinstance(image, str):
        return None
    for server in SERVERS:
        if server.image.fullmatch(image):
            return server
    program = find_program(_words(box))
    return program.server if program is not None else None


def _words(box: Mapping[str, Any]) -> list[str]:
    """What it runs: entrypoint (Compose), command, args; a shell's -c taken apart."""
    words: list[str] = []
    for name in ("entrypoint", "command", "args"):
        value = box.get(name) or []
        words += shlex.split(value) if isinstance(value, str) else [str(word) for word in value]
    if len(words) >= 3 and words[0] in SHELLS and words[1].lstrip("-").endswith("c"):
        return shlex.split(words[2].replace("\\\n", " "))
    return words


def _migrate_container(box: dict[str, Any], manifest: bool) -> list[Note]:
    server = _server(box)
    assert server is not None
    notes: list[Note] = []
    given = ["hostname", *_rename_variables(server, box, notes)]
    words = _words(box)
    program = find_program(words)
    if program is not None and program.start:
        left_out = shlex.join(words[: program.start])
        notes.append(Note(left_out, "stood before the server, and was left out", served=False))
    result = translate(server, words[program.end :] if program is not None else words)
    result.add_defaults(given)
    if not server.image.fullmatch(box["image"]):
        notes.append(Note(box["image"], f"is an image of your own; {IMAGE} is in its place"))
    box["image"] = IMAGE
    for name in ("entrypoint", "command", "args"):
        box.pop(name, None)
    if arguments := result.words():
        box["args" if manifest else "command"] = arguments
    mounts = [*(box.get("volumes") or []), *(box.get("volumeMounts") or [])]
    notes += [cache_note(server, str(mount)) for mount in mounts if holds_cache(server, str(mount))]
    return notes + result.notes


def _rename_variables(server: Server, box: dict[str, Any], notes: list[Note]) -> list[str]:
    """Rewrites them in place. The options of Penstock that they give."""
    given: list[str] = []

    def renamed(name: str, value: Any) -> str | None:
        kept, note = rename(server, name, None if value is None else str(value))
        notes.extend([note] if note else [])
        given.extend(option_of(server, name, kept))
        return kept

    for key in ("environment", "env"):
        variables = box.get(key)
        if isinstance(variables, dict):
            pairs = [(renamed(name, value), value) for name, value in variables.items()]
            box[key] = {name: value for name, value in pairs if name is not None}
        elif isinstance(variables, list):
            entries = (_renamed_entry(entry, renamed) for entry in variables)
            box[key] = [entry for entry in entries if entry is not None]
    return given


def _renamed_entry(entry: Any, renamed: Any) -> Any:
    """`NAME=VALUE` or `NAME` (Compose), or {name, value} (Kubernetes)."""
    if isinstance(entry, dict):
        name = renamed(str(entry.get("name")), entry.get("value"))
        return None if name is None else {**entry, "name": name}
    name, mark, value = str(entry).partition("=")
    kept = renamed(name, value if mark else None)
    return None if kept is None else f"{kept}{mark}{value}"
