"""A shell's command lines: another server's program or image, with all that stands around it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock_launcher.migration import sglang, tgi, vllm
from penstock_launcher.migration.arguments import translate
from penstock_launcher.migration.environment import option_of, rename
from penstock_launcher.migration.rows import Note, Server

SERVERS: tuple[Server, ...] = (tgi.SERVER, vllm.SERVER, sglang.SERVER)
IMAGE = "penstock:latest"
CACHE = "/data"  # of Penstock's image
SAFE = re.compile(r"[\w@%+=:,./${}~^-]+")
END = re.compile(r"&&|\|\|?|;|&|\d?>>?(?:&\d)?|<")  # what follows is another command, or a file
NAME = re.compile(r"[A-Za-z_]\w*")
CONTAINER = ("docker", "podman", "nerdctl")  # alone, or behind sudo


@dataclass(slots=True)
class Migrated:
    """Text for standard output, and what differs."""

    text: str
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Program:
    """A server in a list of words: its own words are those from start to end."""

    server: Server
    start: int
    end: int
    is_image: bool


def find_program(words: Sequence[str]) -> Program | None:
    """The first of the programs and images that the tables know. An image may be followed by the
    program that it starts, which then belongs to it."""
    in_container = not set(CONTAINER).isdisjoint(words[:2])
    for start, word in enumerate(words):
        for server in SERVERS if in_container else ():
            if server.image.fullmatch(word):
                inner = _program_at(words, start + 1)
                return Program(server, start, inner.end if inner else start + 1, True)
        if found := _program_at(words, start):
            return found
    return None


def _program_at(words: Sequence[str], start: int) -> Program | None:
    for server in SERVERS:
        for pattern in server.programs:
            count = pattern.pattern.count(" ") + 1
            if pattern.fullmatch(" ".join(words[start : start + count])):
                return Program(server, start, start + count, False)
    return None


def migrate_script(text: str) -> Migrated | None:
    """A command line, or a script whose other lines stay; None: nothing in it is a server."""
    joined = re.sub(r"\\\r?\n\s*", " ", text)
    lines, notes, found = [], [], False
    for line in joined.splitlines():
        one = _migrate_line(line)
        found = found or one is not None
        lines.append(one.text if one else line)
        notes += one.notes if one else []
    return Migrated("\n".join(lines), notes) if found else None


def _migrate_line(line: str) -> Migrated | None:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote without an end: prose, or part of something longer
        return None
    return migrate_words(words)


def migrate_words(words: Sequence[str]) -> Migrated | None:
    """One command; None: it starts none of the servers."""
    end = next((i for i, word in enumerate(words) if END.fullmatch(word)), len(words))
    command, rest = words[:end], words[end:]
    if (program := find_program(command)) is None:
        return None
    before, notes, given = _environment(program, command[: program.start])
    runs = not program.is_image or "run" in before  # or it is pulled
    result = translate(program.server, command[program.end :])
    if runs:
        if program.is_image:
            given = [*given, "hostname"]  # containers are reached from outside
            notes += _volumes(program.server, before)
        result.add_defaults(given)
    name = [IMAGE] if program.is_image else ["penstock", "serve"]
    line = " ".join(map(quoted, (*before, *name, *result.words(), *rest)))
    return Migrated(line, notes + result.notes)


def _environment(program: Program, words: Sequence[str]) -> tuple[list[str], list[Note], list[str]]:
    """Variables before a program, and after -e of a container: words, notes, options given."""
    kept: list[str] = []
    notes: list[Note] = []
    given: list[str] = []
    for word in words:
        behind_flag = kept[-1:] in (["-e"], ["--env"])
        prefix = "--env=" if word.startswith("--env=") else ""
        name, mark, value = word.removeprefix(prefix).partition("=")
        variable = behind_flag or prefix or (mark and not program.is_image)
        if not variable or not NAME.fullmatch(name):
            kept.append(word)
            continue
        renamed, note = rename(program.server, name, value if mark else None)
        notes += [note] if note else []
        if renamed is not None:
            kept.append(f"{prefix}{renamed}{mark}{value}")
            given += option_of(program.server, name, renamed)
        elif behind_flag:
            kept.pop()
    return kept, notes, given


def _volumes(server: Server, words: Sequence[str]) -> list[Note]:
    return [cache_note(server, word) for word in words if holds_cache(server, word)]


def holds_cache(server: Server, mount: str) -> bool:
    return server.cache != CACHE and server.cache in mount


def cache_note(server: Server, mount: str) -> Note:
    return Note(
        mount,
        f"is where {server.name}'s image keeps models; Penstock's keeps the hub's cache at "
        f"{CACHE}: mount the folder `hub` of it there",
    )


def quoted(word: str) -> str:
    """For a shell; variables in it stay variables."""
    if SAFE.fullmatch(word) or END.fullmatch(word):
        return word
    if "$" in word and not re.search(r"[`\"\\]", word):
        return f'"{word}"'
    return shlex.quote(word)
