"""Writes the tables of docs/options.md and docs/from/, between markers."""

import sys
from pathlib import Path

from foreign_fields import tables

from penstock_launcher.migration.commands import SERVERS
from penstock_launcher.migration.page import flags, limits
from penstock_launcher.options.page import markdown as options

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def with_table(page: str, name: str, table: str) -> str:
    """The page with the table of that name as it should be."""
    begin, end = f"<!-- {name}: made by `make readme` -->\n", f"<!-- end of {name} -->\n"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


def pages() -> dict[Path, str]:
    """Each page that has a table, as it should be."""
    page = DOCS / "options.md"
    found = {page: with_table(page.read_text(), "options", options())}
    for server in SERVERS:
        path = DOCS / "from" / f"{server.name.lower()}.md"
        page = with_table(path.read_text(), "flags", flags(server))
        page = with_table(page, "limits", limits(server))
        found[path] = with_table(page, "fields", tables(server.name))
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
    sys.exit(0)
