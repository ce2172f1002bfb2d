"""A Dockerfile as stages of instructions, for tests that replay it."""

from __future__ import annotations

import fnmatch
import re
import shlex
import string
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """`RUN make test` as a word and the rest, its lines joined."""

    word: str
    rest: str

    @property
    def paths(self) -> list[str]:
        """Sources and target of a COPY."""
        return [part for part in shlex.split(self.rest) if not part.startswith("--")]


def stages(dockerfile: Path) -> list[list[Instruction]]:
    """Each begins with its FROM."""
    found: list[list[Instruction]] = []
    for step in _instructions(dockerfile):
        if step.word == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


def bases(dockerfile: Path) -> list[str]:
    """The images that stages stand on, unless who builds it names others."""
    given: dict[str, str] = {}
    found = []
    for step in _instructions(dockerfile):
        if step.word == "ARG" and "=" in step.rest and not found:
            name, value = step.rest.split("=", 1)
            given[name] = value
        if step.word == "FROM":
            found.append(string.Template(step.rest.split()[0]).substitute(given))
    return found


def _instructions(dockerfile: Path) -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines()]
    return [Instruction(line[0], " ".join(line[1].split())) for line in lines if line]


def ignored(path: str, dockerignore: Path) -> bool:
    """Whether a path of the build's context is kept from the builder; the last rule counts."""
    hidden = False
    for line in dockerignore.read_text().splitlines():
        rule = line.strip()
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
            anywhere = parts if "**/" in rule else []
            if any(fnmatch.fnmatchcase(one, pattern) for one in (*heads, *anywhere)):
                hidden = not rule.startswith("!")
    return hidden
