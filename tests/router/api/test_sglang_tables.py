"""docs/api.md names every field of SGLang's protocol, and says what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock_router.api.routes import ROUTES
from penstock_router.api.schema import ClientObject
from penstock_router.api.sglang_sampling import SamplingParams
from penstock_router.api.sglang_schema import SGLangRequest

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
SECTION = PAGE.split("## SGLang's protocol\n")[1].split("\n## ")[0]
TABLES = {
    title: [row.strip("|").split("|") for row in rows.strip().splitlines()]
    for title, rows in re.findall(
        r"\| ([^|]+?) \| here \|[^\n]*\n\|[-|]+\|\n((?:\|.*\n)+)", SECTION
    )
}


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def treatments(model: type[ClientObject]) -> dict[str, str]:
    """Every field that the schema knows, and what it does with it."""
    honoured = dict.fromkeys(model.model_fields, "honoured")
    ignored = dict.fromkeys(model.IGNORED, "no effect")
    return honoured | ignored | dict.fromkeys(model.UNSUPPORTED, "refused")


@pytest.mark.parametrize(
    ("title", "model"),
    [("field", SGLangRequest), ("field of `sampling_params`", SamplingParams)],
)
def test_every_field_has_a_row(title: str, model: type[ClientObject]) -> None:
    rows = TABLES[title]
    said = {name: row[1].strip() for row in rows for name in named(row[0])}
    assert said == treatments(model)


def test_every_route_has_a_row() -> None:
    said = {name for row in TABLES["route"] for name in named(row[0])}
    there = {route.path for route in ROUTES}
    assert said <= there
    elsewhere = {"/encode", "/open_session", "/update_weights_from_disk"}
    assert not elsewhere & there
    own = {route.path for route in ROUTES if "sglang_control" in route.handler.__module__}
    assert own <= said
