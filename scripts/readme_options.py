"""Writes the table of options into README.md and those of docs/migrating.md, between markers."""

import sys
from pathlib import Path

from penstock_launcher.migration.page import markdown as flags
from penstock_launcher.options.readme import markdown as options

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MIGRATING = ROOT / "docs" / "migrating.md"


def with_table(page: str, name: str, table: str) -> str:
    """The page with the table of that name as it should be."""
    begin, end = f"<!-- {name}: made by `make readme` -->\n", f"<!-- end of {name} -->\n"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), "options", options()))
    MIGRATING.write_text(with_table(MIGRATING.read_text(), "flags", flags()))
    sys.exit(0)
