"""docs/troubleshooting.md quotes messages that the code still has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("launcher", "router", "shard", "quantization", "client", "proto")
ANY = "\x00"  # where the code puts a value
# Of a quoted message so many letters must be the code's own, or it might be found anywhere.
FEWEST = 8


def pieces(node: ast.expr) -> str:
    """A text of the code, whose values are ANY."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"\{[^{}]*\}", ANY, text)  # as for str.format
        case ast.JoinedStr(values=values):
            return "".join(pieces(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return pieces(left) + pieces(right)
    return ANY


@cache
def texts() -> tuple[str, ...]:
    """All of the code, docstrings left out."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                    found.update([pieces(node)] if id(node) not in said else [])
    return tuple(text for text in found if sum(map(str.isalpha, text)) >= FEWEST)


def messages() -> list[str]:
    """The first column of the tables of messages."""
    found = []
    for table in re.findall(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.M):
        for line in table.splitlines():
            cell = line.split(" | ")[0].removeprefix("| ").strip()
            match = re.fullmatch(r"(`+)(.*)\1", cell)
            assert match, f"no message in a code span: {cell}"
            found.append(match[2].strip())
    return found


def is_in_the_code(message: str) -> bool:
    """Whether one text of the code has its parts, in order, with a value at each `…`."""
    parts = [re.escape(part.strip(" ")) for part in message.split("…")]
    pattern = re.compile(rf".*{ANY}.*".join(parts).join((".*", ".*")), re.DOTALL)
    padded = (f"{ANY}{text}{ANY}" for text in texts())
    return any(pattern.fullmatch(text) for text in padded)


@pytest.mark.parametrize("message", messages())
def test_the_message_is_there(message: str) -> None:
    assert sum(map(str.isalpha, message)) >= FEWEST
    assert is_in_the_code(message)


def test_a_message_that_nobody_prints_is_found() -> None:
    assert len(messages()) > 60
    assert is_in_the_code("cannot listen at … port … (--…): …")
    assert not is_in_the_code("cannot listen on … port … (--…): …")
    assert not is_in_the_code("port … cannot listen at …")
