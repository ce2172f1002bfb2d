"""What clients write is read in a time that its length bounds. Processor time is measured: without
these bounds each of these takes many seconds, with them some milliseconds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import BadGrammar
from penstock_router.structured import grammar_from
from penstock_router.structured.lark import MAX_CHARACTERS
from penstock_router.structured.multiples import check_multiples
from penstock_router.tools.definition import Tool
from penstock_router.tools.lark import Rules
from penstock_router.tools.patterns import MAX_PATTERN, may_be_empty
from penstock_router.tools.written import Notation

SECONDS = 1.0  # of the processor: some tens of times what it takes


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def refused(work: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        work()


@pytest.mark.parametrize(
    "piece",
    [
        '"' + '\\"' * 8,
        "/" + "\\/" * 8,
        "%import a (\n",
        '\\"',
        "\\/",
        "%json",
        "%json{}",
        "a{",
        "<",
    ],
)
def test_a_grammar_is_read_once(piece: str) -> None:
    text = 'start: "a"\n' + '"' * (piece[0] == "\\") + piece * ((MAX_CHARACTERS - 99) // len(piece))

    def read() -> None:
        try:
            grammar_from("grammar", text)
        except ValueError as error:
            assert "names that it does not define" in str(error)

    assert processor_seconds(read) < SECONDS


@pytest.mark.parametrize("head", ["a", "start: a\n%json", "%import a", "->", "a.1", "%ignore"])
def test_a_grammar_of_blanks(head: str) -> None:
    text = head + " " * (MAX_CHARACTERS - 99)

    def read() -> None:
        refused(lambda: grammar_from("grammar", text), ValueError, "must|uses")

    assert processor_seconds(read) < SECONDS


def test_a_structural_tag_has_an_end() -> None:
    excludes = ["é" * 1000] * 250
    rules = [[f"r{i}", {"type": "const_string", "value": "x"}] for i in range(250)]
    tag = {"format": {"type": "dispatch", "excludes": excludes, "rules": rules}}
    text = '{"structures": [' + "[]," * 500_000 + "[]]}"
    for value, said in ((tag, "at most 262144 characters"), (text, "at most 262144 characters")):
        seconds = processor_seconds(
            lambda v=value, s=said: refused(  # type: ignore[misc]
                lambda: grammar_from("structural_tag", v), ValueError, s
            )
        )
        assert seconds < SECONDS


def test_multiples_of_very_many_digits() -> None:
    numbers = itertools.cycle((1.1e300, 7.3e-300))
    schema = {"anyOf": [{"multipleOf": next(numbers) * (1 + i)} for i in range(1200)]}
    grammar = grammar_from("json", schema)

    def read() -> None:
        refused(lambda: check_multiples(grammar), BadGrammar, "more than 32")

    assert processor_seconds(read) < SECONDS / 10


def tool(schema: dict[str, Any]) -> Tool:
    return Tool.checked("f", None, {"type": "object", "properties": {"a": schema}})


@pytest.mark.parametrize("piece", ["[é-ﬀ]", "[\x00-\U0010ffff]", "(?:a{9}){9}", "(a|b)*"])
def test_the_pattern_of_a_tool_is_not_compiled(piece: str) -> None:
    pattern = "(?i)" + piece * ((MAX_PATTERN - 4) // len(piece))
    assert processor_seconds(lambda: tool({"type": "string", "pattern": pattern})) < SECONDS


@pytest.mark.parametrize(
    ("pattern", "empty"),
    [("", True), ("a*", True), ("^$", True), ("a?b", False), ("(?:||){40}(?:b|c)", False)],
)
def test_what_matches_the_empty_text(pattern: str, empty: bool) -> None:
    assert may_be_empty(pattern) is empty


def test_choices_within_choices_come_to_a_bounded_grammar() -> None:
    some = [{"type": "integer", "minimum": i} for i in range(1000)]
    schema = {"anyOf": [{"maximum": i} for i in range(1000)], "oneOf": some}
    notation = Notation(Rules({}), schema, "'")
    seconds = processor_seconds(
        lambda: refused(lambda: notation.value(schema), BadGrammar, "a grammar of more than")
    )
    assert seconds < 8 * SECONDS


def test_a_grammar_within_a_grammar_is_counted() -> None:
    rules = Rules({})
    for i in range(60):
        rules.grammar(Grammar(GrammarKind.LARK, f"start: {'a' * 65_000}{i}"))
    refused(lambda: [rules.literal("a" * 65_000) for _ in range(60)], BadGrammar, "more than")
