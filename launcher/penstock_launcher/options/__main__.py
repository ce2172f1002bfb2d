"""`python -m penstock_launcher.options --markdown` prints the tables of docs/options.md."""

from __future__ import annotations

import sys

from penstock_launcher.options.page import markdown

if sys.argv[1:] != ["--markdown"]:
    sys.exit("usage: python -m penstock_launcher.options --markdown")
print(markdown(), end="")
