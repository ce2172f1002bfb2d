"""Writes the table of options into README.md, between its two markers."""

import sys
from pathlib import Path

from penstock_launcher.options import markdown

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- options: made by `make readme` -->\n"
END = "<!-- end of options -->\n"


def with_table(readme: str) -> str:
    """The README with the table as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
    sys.exit(0)
