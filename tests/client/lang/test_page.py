"""docs/language.md names every word, every argument of `gen`, and every method."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import penstock.lang as sgl

PAGE = (Path(__file__).parents[3] / "docs" / "language.md").read_text()


def rows(title: str) -> set[str]:
    """What stands in the first column of the table below a heading."""
    text = re.split(r"\n#{2,3} ", PAGE.split(f"\n{title}\n", 1)[1])[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_words() -> None:
    assert rows("## Words") == set(sgl.__all__)


def test_arguments_of_gen() -> None:
    assert rows("### Arguments of `gen`") == set(inspect.signature(sgl.gen).parameters)


def test_methods() -> None:
    from penstock.lang.choices import METHODS

    assert rows("### Choices") == set(METHODS)
