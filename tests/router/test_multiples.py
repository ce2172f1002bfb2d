"""`multipleOf` in grammars: what is compiled without an end is refused before."""

from __future__ import annotations

import pytest

from penstock_router.request import BadGrammar
from penstock_router.structured.kinds import grammar_from
from penstock_router.structured.multiples import check_multiples

LARGE = {"type": "integer", "multipleOf": 99_999_989}
IN_LARK = 'start: "a" | b\nb: %json '
TAG = {"format": {"type": "json_schema", "json_schema": LARGE}}


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("json", LARGE, "too large"),
        ("json", {"multipleOf": 9973, "allOf": [{"anyOf": [{"multipleOf": 9967}]}]}, "too large"),
        ("json", {"$ref": "#/$defs/a", "multipleOf": 9973, "$defs": {"a": {"multipleOf": 9967}}},
         "too large"),
        ("json", {"anyOf": [{"multipleOf": 9973 + n} for n in range(40)]}, "more than 32"),
        ("json", {"properties": {f"p{n}": {"multipleOf": 9973 + n} for n in range(20)}}, "large"),
        ("json", {"$ref": "#/$defs/0", "multipleOf": 7919, "$defs": {
            **{f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(1200)}, "1200": LARGE}}, ""),
        ("grammar", IN_LARK + '{"type": "integer", "multipleOf": 1000003}', "too large"),
        ("grammar", IN_LARK + '{"type": "integer", "\\u006dultipleOf": 1000003}', "too large"),
        ("grammar", IN_LARK + '// {\n{"type": "integer", "multipleOf": 1000003}', "behind `%json`"),
        ("structural_tag", TAG, "too large"),
    ],
)  # fmt: skip
def test_too_large(kind: str, value: object, said: str) -> None:
    with pytest.raises(BadGrammar, match=said):
        check_multiples(grammar_from(kind, value))


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 86_400},
        {"multipleOf": 10**12},
        {"multipleOf": 0.01},
        {"properties": {f"p{n}": {"multipleOf": n} for n in (7, 11, 13, 60, 3600, 0.05, 1000)}},
        {"properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(9)},
         "$defs": {"a": {"multipleOf": 30_011}}},
        {"enum": [LARGE]},
        {"const": "multipleOf"},
    ],
)  # fmt: skip
def test_what_people_ask_for(schema: object) -> None:
    check_multiples(grammar_from("json", schema))
