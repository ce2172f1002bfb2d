"""Writes the table of values into the chart's README: `python scripts/chart_readme.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent.parent / "charts" / "penstock"
BEGIN, END = (
    "<!-- values: made by `python scripts/chart_readme.py` -->\n",
    "<!-- end of values -->\n",
)


def rows(schema: dict[str, Any], values: Any, prefix: str = "") -> Iterator[str]:
    """One for each value that is no object with values of its own."""
    for name, rule in schema["properties"].items():
        path = prefix + name
        default = values.get(name) if isinstance(values, dict) else None
        if "properties" in rule:
            yield from rows(rule, default, path + ".")
        elif name != "global":
            shown = "**required**" if name in schema.get("required", ()) else _code(default)
            yield f"| `{path}` | {shown} | {rule['description']} | {_bounds(rule)} |"


def _code(default: Any) -> str:
    return f"`{json.dumps(default)}`" if default not in ("", None) else "-"


def _bounds(rule: dict[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(f"`{one}`" for one in rule["enum"])
    low = rule.get("minimum", rule.get("exclusiveMinimum"))
    return f"{low} to {rule['maximum']}" if low is not None else rule["type"]


def readme(text: str) -> str:
    """The page with the table as the schema and the defaults make it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    head = ["| value | default | meaning | takes |", "|---|---|---|---|"]
    table = "\n".join([*head, *rows(schema, values)]) + "\n"
    before, rest = text.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    path = CHART / "README.md"
    path.write_text(readme(path.read_text()))
