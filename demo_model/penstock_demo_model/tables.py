"""The words, facts and phrases that documents are made of: what stands in `data/`.

A file has tables, each below its name in brackets. A row is a line; cells are parted by `|`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"


def _read() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(_DATA.glob("*.txt")):
        for part in path.read_text().split("\n["):
            name, _, lines = part.removeprefix("[").strip("\n").partition("]\n")
            found[name] = lines.replace("\\n", "\0").splitlines()
    return {name: [line.replace("\0", "\n") for line in rows] for name, rows in found.items()}


TABLES = _read()


def phrases(name: str) -> list[str]:
    """The rows of a table as they are."""
    return TABLES[name]


@cache
def rows(name: str) -> list[list[str]]:
    """The cells of each row."""
    return [line.split("|") for line in TABLES[name]]


@cache
def words(name: str) -> list[str]:
    """All words of a table."""
    return " ".join(TABLES[name]).split()


@cache
def pairs(name: str) -> list[list[str]]:
    """Words that are joined by hyphens."""
    return [pair.split("-") for pair in words(name)]


def blocks(name: str) -> list[list[str]]:
    """Of a file of code: what a function does, which its first line says, and its source."""
    text = (_DATA / name).read_text().rstrip("\n")
    return [block.removeprefix("# ").split("\n", 1) for block in text.split("\n\n\n")]


@dataclass(frozen=True, slots=True)
class Country:
    """One row; `name` has its article, as in "the Netherlands"."""

    name: str
    capital: str
    continent: str
    currency: str
    language: str


COUNTRIES = tuple(Country(*row) for row in rows("countries"))
