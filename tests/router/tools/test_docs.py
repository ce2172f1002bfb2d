"""docs/tools.md lists what there is."""

from pathlib import Path

from penstock_router.reasoning import REASONING
from penstock_router.tools.formats import FORMATS

PAGE = Path(__file__).parents[3] / "docs" / "tools.md"


def test_every_row_is_on_the_page() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    listed = {cells[0].removeprefix("| "): cells[1].strip() for cells in rows}
    for row in (*FORMATS, *REASONING):
        assert row.name in listed
    by_name = {(cells[0].removeprefix("| "), cells[1].strip()) for cells in rows}
    for row in (*FORMATS, *REASONING):
        assert (row.name, ", ".join(row.names)) in by_name
