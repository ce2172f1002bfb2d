"""Blocks of code in pages: what a reader pastes, and what the page says comes out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:3000"  # of the server in the pages
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What needs a network, a container, a cluster, another machine or half an hour.
ELSEWHERE = {".venv/bin/python", "docker", "git", "helm", "kubectl", "make", "pip", "source"}
OTHER_HOST = re.compile(r"http://(?:old|new):")
SERVERS = re.compile(
    r"(?:penstock serve|(?:text-generation-)?launcher"
    r"|python -m penstock\.(?:launch_server|entrypoints\.\S+))\b"
)
SECONDS = 250


@dataclass(frozen=True)
class Block:
    """One block of a page, and the block of text behind it, which is its output."""

    page: str
    line: int
    language: str
    text: str
    output: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a shell's block that begin a command."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        plain = re.sub(r"<<'(\w+)'\n.*?^\1$", "", joined, flags=re.MULTILINE | re.DOTALL)
        plain = re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), plain)
        return [line for line in plain.splitlines() if line.strip() and line[0] != "#"]

    @property
    def is_elsewhere(self) -> bool:
        """Whether nothing of it can run here; a block is one or the other as a whole."""
        found = {
            command.split()[0] in ELSEWHERE or OTHER_HOST.search(command) is not None
            for command in self.commands
        }
        assert len(found) == 1, f"{self.page}:{self.line} mixes what runs here and elsewhere"
        return found.pop()

    @property
    def is_server(self) -> bool:
        """Whether it starts a server, alone in its block."""
        found = [bool(SERVERS.match(command)) for command in self.commands]
        assert not any(found) or len(found) == 1, f"{self.page}:{self.line} starts more than one"
        return all(found)

    def server_options(self) -> list[str]:
        """What the launcher is given."""
        words = SERVERS.sub("", self.commands[0], count=1).partition(">")[0]
        return shlex.split(words, comments=True)


def blocks(page: Path) -> list[Block]:
    """Those of `sh` and `python`, in their order; `text` or `json` behind one is its output."""
    text = page.read_text()
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, code = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if language in ("text", "json") and found and found[-1].output is None:
            found[-1] = Block(*list(found[-1].__dict__.values())[:4], code)
        elif language in ("sh", "python"):
            found.append(Block(str(page.relative_to(ROOT)), line, language, code, None))
    return found


def run(block: Block, folder: Path, url: str = "") -> str:
    """What it prints. Raises AssertionError where it fails or lacks a line of its output."""
    code = block.text.replace(ADDRESS, url.removeprefix("http://")) if url else block.text
    if url:  # these ask port 3000 where they are told nothing
        code = re.sub(
            r"^penstock (run|chat)(?![-\w])", rf"penstock \1 --url {url}", code, flags=re.M
        )
    shell = ["bash", "-euo", "pipefail", "-c", code]
    command = shell if block.language == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PENSTOCK_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    place = f"{block.page}:{block.line}"
    assert result.returncode == 0, f"{place}\n{result.stdout}\n{result.stderr}"
    for line in (block.output or "").splitlines():
        assert line in result.stdout, f"{place}: no {line!r} in\n{result.stdout}\n{result.stderr}"
    return result.stdout


def folder_like_the_clone(folder: Path) -> Path:
    """Where a reader stands: what blocks write is not left in the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("docs", "examples", "charts"):
        (folder / name).symlink_to(ROOT / name)
    return folder
