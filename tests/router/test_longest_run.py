"""The bound of what a grammar may force."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.structured import grammar_from
from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.longest_run import MOST_FORCED, longest_run

DOUBLED = "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(20))
REFERENCES = {
    f"d{n}": {"properties": {key: {"$ref": f"#/$defs/d{n + 1}"} for key in "ab"}} for n in range(20)
}


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("((a{60}){60}){60}", 216_000),
        ("(x|y)((a{60}){60}){60}", 216_001),
        ("z|(a{60}){60}", 3600),
        ("(a{60,61}|aa){60}", 3600),
        ("a{9}[ab]c{7}(?:d|e)?f{3}", 12),
        (r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", 9),
        (r"(?:\d{3}|[\]{5}]{2,}){0,9}\{", 3),
        (r"\p{L}{7}(?P<name>x){2}?", 4),
        ("no counts", 9),
    ],
)
def test_patterns(pattern: str, length: int) -> None:
    assert longest_run(Grammar(GrammarKind.REGEX, pattern)) == length


@pytest.mark.parametrize("pattern", ["a{3}(", "a{3})", "(a{3}"])
def test_what_is_not_understood_has_no_bound(pattern: str) -> None:
    assert longest_run(Grammar(GrammarKind.REGEX, pattern)) == math.inf


@pytest.mark.parametrize(
    ("lark", "least"),
    [
        ('start: ("x" | "y") b{60}\nb: c{60}\nc: d{60}\nd: "a"', 216_000),
        ("start: b{60}\nb: A{60}\nA: /a{3600}/", 12_960_000),
        ("start: b~60\nb: A~60..61\nA: /a{3600}/", 12_960_000),
        (f'start: r0\n{DOUBLED}\nr20: "a"', 2**20),
        ('start: %json {"type": "array", "items": {"const": 12345}, "minItems": 9000}', 45_000),
        ('start: a\na: %lark {\nstart: "x"\n}', math.inf),
    ],
    ids=["rules", "terminals", "tildes", "doubled", "schema", "rules within"],
)
def test_rules(lark: str, least: float) -> None:
    assert longest_run(Grammar(GrammarKind.LARK, lark)) >= least > MOST_FORCED


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        ({"type": "array", "items": {"const": "q" * 3600}, "minItems": 3000}, 10_800_000),
        ({"$defs": {**REFERENCES, "d20": {"const": 1}}, "$ref": "#/$defs/d0"}, 2**20),
        ({"type": "string", "pattern": "^a{50000}$"}, 50_000),
        ({"type": "string", "pattern": "^a*$", "minLength": 50_000}, 50_000),
        ({"patternProperties": {"^a{200}$": {"const": 1}}, "minProperties": 100}, 20_000),
        ({"anyOf": [{"const": 1}, {"const": "q" * 20_000}]}, 20_000),
        ({"allOf": [{"pattern": "^[ab]{5000}$"}, {"pattern": "^[bc]{5000}$"}]}, 5_000),
        ({"pattern": 5}, math.inf),
    ],
    ids=["items", "references", "pattern", "length", "properties", "branches", "together", "odd"],
)
def test_schemas(schema: dict[str, Any], least: float) -> None:
    found = longest_run(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)))
    assert found >= least > MOST_FORCED


TOOL = {
    "type": "object",
    "properties": {f"parameter_{n}": {"type": "string", "maxLength": 200} for n in range(30)},
    "required": ["parameter_0"],
}
LIST = {
    "$defs": {"node": {"properties": {"v": {"type": "integer"}, "n": {"$ref": "#/$defs/node"}}}},
    "$ref": "#/$defs/node",
}
PROGRAM = """start: statement+
statement: "if" "(" expression ")" block | NAME "=" expression ";"
block: "{" statement* "}"
expression: expression "+" expression | NAME
NAME: /[a-z]{3,9}/
%ignore /[ ]+/
"""


@pytest.mark.parametrize(
    "grammar",
    [
        json_schema({"anyOf": [TOOL] * 20}),
        json_schema(LIST),
        json_schema({"enum": [f"value {n}" for n in range(4000)]}),
        grammar_from("regex", r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}"),
        grammar_from("grammar", PROGRAM),
        grammar_from("choice", ["yes", "no"]),
    ],
    ids=["tools", "a list", "values", "a date", "a program", "a choice"],
)
def test_what_is_usual_is_far_below(grammar: Grammar) -> None:
    assert longest_run(grammar) < MOST_FORCED / 4


def test_it_is_never_less_than_the_shortest_text_of_a_pattern() -> None:
    """Patterns by chance without a class, whose shortest text is known."""
    chance = random.Random(0)

    def made(depth: int) -> tuple[str, int]:
        match chance.randrange(5 if depth else 2):
            case 0:
                return chance.choice([("a", 1), (r"\.", 1), ("b+", 1), ("bc", 2)])
            case 1:
                return chance.choice([("", 0), ("d?", 0), ("e*", 0), ("f{,3}", 0)])
            case 2:
                (one, least), (two, other) = made(depth - 1), made(depth - 1)
                return f"(?:{one}|{two})", min(least, other)
            case 3:
                (one, least), count = made(depth - 1), chance.randrange(9)
                return f"({one}){{{count},}}", least * count
            case _:
                (one, least), (two, other) = made(depth - 1), made(depth - 1)
                return f"(?:{one}){two}", least + other

    for _ in range(500):
        pattern, least = made(5)
        assert longest_run(Grammar(GrammarKind.REGEX, pattern)) >= least, pattern
