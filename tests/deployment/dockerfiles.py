"""A Dockerfile as stages of instructions, for tests that replay it."""

from __future__ import annotations

import fnmatch
import re
import shlex
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
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    found: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, " ".join(rest.split())))
    return found


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
