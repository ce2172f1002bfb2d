"""Every mutation of tests/mutations still applies: so `make mutate` tests what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.mutations.table import MUTATIONS, Mutation

from test_docs import names_of
from test_promises import rows

ROOT = Path(__file__).parent.parent
# Rows whose defence has no single place, or whose tests are of a machine, a build or a balancer.
WITHOUT = {"F9", "F10", "F18", "S4", "S5", "S6", "S8", "S10", "S13", "S14", "S21", "S24"}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.row} {Path(m.file).stem}")
def test_it_applies(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1, "the text is gone, or stands there twice"
    mutated = text.replace(mutation.old, mutation.new)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text))
    path, _, name = mutation.test.partition("::")
    assert name in names_of(ROOT / path)


def test_every_row_has_one() -> None:
    numbers = {row[0] for row in rows("docs/reliability.md")}
    mutated = {mutation.row for mutation in MUTATIONS}
    assert not mutated & WITHOUT
    assert mutated | WITHOUT == numbers
