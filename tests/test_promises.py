"""What the documentation promises, and what users type, is held by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.assets import assets
from test_docs import names_of

ROOT = Path(__file__).parent.parent
PAGES = ("SECURITY.md", "docs/reliability.md", "tests/README.md")
ARTICLES = assets().parent / "seeds"
TABLE = r"^\|.*\| [Tt]ests? \|\n\|[-|]+\|\n((?:\|.*\|\n)+)"
TEST = re.compile(r"`(tests/[\w/]+\.py)` \(`(test_\w+)`\)")


def rows(page: str) -> list[list[str]]:
    """Cells of every row of its tables of tests, without heads; others hold measurements."""
    tables = re.findall(TABLE, (ROOT / page).read_text(), re.MULTILINE)
    assert tables, f"{page} has no table whose last column is the tests"
    lines = [line for body in tables for line in body.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_tests_that_exist(page: str) -> None:
    found = rows(page)
    assert len(found) >= 10
    for row in found:
        tests = TEST.findall(row[-1])
        if not tests:
            assert row[-1] == "(planned)" and page == "docs/reliability.md", row
        rest = TEST.sub("", row[-1]).replace(",", "").strip()
        assert rest in ("", "(planned)"), f"not a test: {rest}"
        for path, name in tests:
            assert (ROOT / path).is_file(), path
            assert name in names_of(ROOT / path), (path, name)


@pytest.mark.skipif(not ARTICLES.is_dir(), reason="the articles are not on this machine")
def test_every_program_of_the_articles_has_a_row() -> None:
    """Those of SGLang's language have names; of others there is a row by hand."""
    told = {row[0]: "" for row in rows("tests/README.md")}
    for row in rows("tests/README.md"):
        told[row[0]] += row[1]
    for path in sorted(ARTICLES.glob("[0-9]*.txt")):
        number = path.name[:3]
        said = "".join(text for numbers, text in told.items() if number in numbers)
        programs = re.findall(r"@sgl\.function\s*def (\w+)", path.read_text())
        assert programs, path
        assert [name for name in programs if f"`{name}`" not in said] == []


def test_every_entry_of_the_runbook_was_tried() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    tried = {row[0]: TEST.findall(row[1]) for row in rows("docs/runbook.md")}
    for entry in re.findall(r"^## (.+)$", page, re.MULTILINE)[:-1]:
        assert tried[entry], entry
    for path, name in sum(tried.values(), []):
        assert name in names_of(ROOT / path), (path, name)


def test_every_known_fault_and_attack_has_a_row() -> None:
    numbers = {row[0] for row in rows("docs/reliability.md")} - {"-"}
    assert numbers == {f"F{n}" for n in range(1, 19)} | {f"S{n}" for n in range(1, 25)}
