"""Every case that trials of the server found has a test by its id."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.assets import assets

CASES = Path(__file__).parent
# W, b, n: inputs with wrong answers. C to L, T: attacks, by how much they did. A: real tokenizers.
IDS = (
    *(f"W{number}" for number in (*range(1, 12), *range(13, 18))),
    *(f"b{number}" for number in range(1, 14)),
    *(f"n{number}" for number in range(1, 9)),
    *("C1", "C1b", "C2", "H1", "H1b", "H1c", "H2"),
    *("M1", "M2", "M2b", *(f"M{number}" for number in range(3, 8))),
    *("L1", "L2", "L3", "L5", "L7", "L8", "L9", "T"),
    *("A2", "A3", "A4", "A6", "A7", "A8", "A10"),
)
# Of a file that is no server's: locked packages, names of metrics, mutations of the code.
ELSEWHERE = {
    "L8": "tests/test_requirements.py::test_L8_every_package_has_hashes",
    "b11": "tests/router/test_metrics.py::test_b11_names_are_as_promtool_wants_them",
}


def ids_of(path: Path) -> set[str]:
    """Ids in names of tests, of their parameters and of tables; `m3_m7` is M3 and M7."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= set(node.name.lower().removeprefix("test_").split("_"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {word.lower() for word in re.findall(r"^[A-Za-z]\d+[a-c]?\b", node.value)}
    return found


HERE = {one for path in CASES.glob("test_*.py") if path.stem != "test_rows" for one in ids_of(path)}


@pytest.mark.parametrize("row", IDS)
def test_it_has_a_test(row: str) -> None:
    if row in ELSEWHERE:
        path, _, name = ELSEWHERE[row].partition("::")
        assert f"def {name}(" in (CASES.parent.parent / path).read_text()
    else:
        assert row.lower() in HERE


@pytest.mark.skipif(not (assets().parent / "cases").is_dir(), reason="the cases are not here")
def test_no_row_is_forgotten() -> None:
    """Rows begin with their id."""
    tables = [
        (assets().parent / "cases" / name).read_text() for name in ("faults.md", "attacks.md")
    ]
    rows = re.findall(r"^\| ([A-Za-z]\d*[a-c]?) \|", "\n".join(tables), re.MULTILINE)
    assert sorted(rows) == sorted(IDS)
