"""Every mutation of tests/mutations still applies: so `make mutate` tests what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tests.mutations import bounded
from tests.mutations.mutation import Mutation
from tests.mutations.table import MUTATIONS

from test_docs import names_of
from test_promises import rows

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.row} {Path(m.file).stem}")
def test_it_applies(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1, "the text is gone, or stands there twice"
    mutated = text.replace(mutation.old, mutation.new)
    if mutation.file.endswith(".py"):
        assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text))
    path, _, name = mutation.test.partition("::")
    assert name in names_of(ROOT / path)


def test_every_row_has_one() -> None:
    numbers = {row[0] for row in rows("docs/reliability.md")}
    assert {mutation.row for mutation in MUTATIONS} == numbers


@pytest.mark.parametrize(("seconds", "code"), [("60", 3), ("1", bounded.HUNG)])
def test_nothing_outlives_its_test(seconds: str, code: int, tmp_path: Path) -> None:
    script = f"setsid sleep 1000 & echo $!; [ {seconds} = 60 ] || wait; exit 3"
    command = [sys.executable, bounded.__file__, seconds, "sh", "-c", script]
    with (tmp_path / "started").open("w") as started:
        assert subprocess.run(command, stdout=started).returncode == code
    numbers = (tmp_path / "started").read_text().split()
    assert not [number for number in numbers if Path(f"/proc/{number}").exists()]
