"""Which grammar a request comes to, from every API's own field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_router.grammar import Grammar, GrammarKind
from support.fake_engine import FakeEngine, limits

HI = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


async def grammar_of(serve: Any, path: str, body: dict[str, Any]) -> Grammar | None:
    client = await serve()
    status, answer = await client.post(path, body)
    assert status == 200, answer
    [request] = client.engine.requests
    if request.grammar is not None:
        assert client.engine.grammars == [request.grammar], "compiled before it was submitted"
    found: Grammar | None = request.grammar
    return found


@pytest.mark.parametrize(
    "extra",
    [
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA},
            }
        },
        {"json_schema": SCHEMA},
        {"json_schema": json.dumps(SCHEMA)},
        {"response_format": {"type": "json", "value": SCHEMA}},
        {"response_format": {"type": "json_object", "value": SCHEMA}},
        {"response_format": {"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}},
    ],
)
async def test_a_schema_is_the_same_everywhere(serve: Any, extra: dict[str, Any]) -> None:
    grammar = await grammar_of(serve, CHAT, {"messages": HI, **extra})
    assert grammar is not None and grammar.kind is GrammarKind.JSON_SCHEMA
    assert json.loads(grammar.text).items() >= SCHEMA.items()


async def test_sglangs_fields(serve: Any) -> None:
    body = {"prompt": "x", "regex": "a+", "ebnf": "", "json_schema": ""}
    grammar = await grammar_of(serve, "/v1/completions", body)
    assert grammar is not None and (grammar.kind, grammar.text) == (GrammarKind.REGEX, "a+")
    body = {"messages": HI, "ebnf": 'root ::= "a"'}
    grammar = await grammar_of(serve, CHAT, body)
    assert grammar is not None and 'start: "a"' in grammar.text
    assert await grammar_of(serve, CHAT, {"messages": HI, "regex": "", "ebnf": None}) is None


async def test_tgis_field(serve: Any) -> None:
    for kind, value in (("json", SCHEMA), ("json_object", SCHEMA), ("json", json.dumps(SCHEMA))):
        parameters = {"grammar": {"type": kind, "value": value}}
        grammar = await grammar_of(serve, "/generate", {"inputs": "x", "parameters": parameters})
        assert grammar is not None and json.loads(grammar.text).items() >= SCHEMA.items()


async def test_no_grammar_is_none(serve: Any) -> None:
    for extra in ({}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}):
        assert await grammar_of(serve, CHAT, {"messages": HI, **extra}) is None


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"guided_regex": "a", "guided_choice": ["b"]}, "`guided_regex`, `guided_choice`"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "`structured_outputs.regex`"),
        (
            {"response_format": {"type": "json_object"}, "guided_json": {}},
            "`response_format`, `guided_json`",
        ),
        ({"response_format": {"type": "json_schema"}}, "must have `json_schema`"),
        ({"regex": "a", "ebnf": "b"}, "`regex`, `ebnf`"),
        ({"regex": "bad"}, "`regex` cannot be used: it is bad"),
        ({"guided_regex": "bad"}, "`guided_regex` cannot be used: it is bad"),
        ({"guided_grammar": "root ::= ("}, "`guided_grammar` cannot be used: it is not a grammar"),
        (
            {"tools": [TOOL], "response_format": {"type": "regex", "value": "bad"}},
            "`response_format` cannot be used: it is bad",
        ),
        ({"guided_json": {"nullable": True}}, "`guided_json` has the keyword `nullable`"),
    ],
)
async def test_what_is_wrong_reaches_no_engine(
    serve: Any, extra: dict[str, Any], said: str
) -> None:
    client = await serve(FakeEngine(limits(max_input_tokens=900, max_total_tokens=1000)))
    status, answer = await client.post(CHAT, {"messages": HI, **extra})
    assert status == 422 and said in answer["error"]["message"], answer
    assert not client.engine.jobs


async def test_grammars_can_be_switched_off(serve: Any) -> None:
    """Who asks for one is refused; tools that the model may call or not are called as it likes."""
    engine = FakeEngine(limits(max_input_tokens=900, max_total_tokens=1000))
    client = await serve(engine, disable_grammar_support=True)
    for body in ({"response_format": {"type": "json_object"}}, {"guided_regex": "a"}):
        status, answer = await client.post(CHAT, {"messages": HI, **body})
        assert status == 422 and "--disable-grammar-support" in answer["error"]["message"]
    tools = [{"type": "function", "function": {"name": "f"}}]
    status, answer = await client.post(CHAT, {"messages": HI, "tools": tools})
    assert status == 200 and client.engine.requests[-1].grammar is None
    body = {"messages": HI, "tools": tools, "tool_choice": "required"}
    status, answer = await client.post(CHAT, body)
    assert status == 422 and "--disable-grammar-support" in answer["error"]["message"]
    assert len(client.engine.requests) == 1 and not client.engine.grammars
