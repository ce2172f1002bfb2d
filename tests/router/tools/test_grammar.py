"""What grammars of tools admit is read as calls whose arguments are those of the schemas."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.reasoning import NAMED as REASONING
from penstock_router.request import BadGrammar
from penstock_router.tools.definition import NO_TOOLS, Mode, Tool, Toolbox
from penstock_router.tools.dialect import Dialect, Start
from penstock_router.tools.events import Event, Reply, joined
from penstock_router.tools.format import Format
from penstock_router.tools.formats import FORMATS, NAMED
from penstock_router.tools.formats_of_text import FORMATS as TEXT_FORMATS
from penstock_router.tools.grammar import reply_grammar
from penstock_router.tools.parser import ReplyParser
from penstock_router.tools.schema import FORMATS as ENFORCED
from penstock_router.tools.styles.elements import Elements
from penstock_router.tools.styles.notations import Pythonic
from support.assets import assets, needs_assets
from support.grammar_walk import Vocabulary, compiled, walk
from support.small_text import byte_level
from support.tool_samples import MARKERS

STEPS = 1500


def vocabulary(row: Format, as_tokens: bool, *more: str) -> Vocabulary:
    tokenizer = byte_level()
    if as_tokens:
        marks = dict.fromkeys([m for text in row.strings for m in MARKERS.findall(text)])
        tokenizer.add_tokens(
            [AddedToken(m, special=place % 2 == 0) for place, m in enumerate(marks)]
        )
    tokenizer.add_tokens([AddedToken(m, special=False) for m in more])
    eos = tokenizer.token_to_id("</s>")
    assert eos is not None
    return Vocabulary(tokenizer, eos)


def read(
    words: Vocabulary, chosen: Dialect, toolbox: Toolbox, tokens: Any, thinking: bool = False
) -> Reply:
    """What the server makes of tokens."""
    schemas = {tool.name: tool.parameters for tool in toolbox.callable}
    parser = ReplyParser(chosen, schemas, thinking=thinking)
    found: list[Event] = []
    text: list[int] = []

    def flush() -> None:
        if text:
            found.extend(parser.feed(words.tokenizer.decode(text, skip_special_tokens=False)))
            text.clear()

    for token in tokens:
        marker = chosen.alphabet.characters.get(token)
        if marker is None:
            text.append(token)
        else:
            flush()
            found.extend(parser.feed(marker))
    flush()
    return joined([*found, *parser.end()])


def check(reply: Reply, toolbox: Toolbox) -> None:
    """Every call is one of the tools', and valid."""
    schemas = {tool.name: tool.parameters for tool in toolbox.callable}
    for call in reply.calls:
        value = json.loads(call.arguments)
        jsonschema.Draft202012Validator(schemas[call.name]).validate(value)


TOOLS = (
    Tool.checked(
        "weather",
        "d",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"enum": ["c", "f"]},
                "wind": {"type": "boolean"},
                "near": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": 5},
                    "maxItems": 2,
                },
                "where": {"$ref": "#/$defs/place"},
                "note": {"anyOf": [{"type": "string", "maxLength": 6}, {"type": "null"}]},
            },
            "required": ["city", "days"],
            "$defs": {
                "place": {
                    "type": "object",
                    "properties": {"x": {"type": "number"}, "y": {"type": ["integer", "null"]}},
                    "required": ["x"],
                }
            },
        },
    ),
    Tool.checked("get_time", None, None),
)
TREE = Tool.checked(
    "tree",
    None,
    {
        "type": "object",
        "properties": {
            "leaf": {"type": "string", "pattern": "^[a-c]{1,3}$", "maxLength": 6},
            "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
        },
        "required": ["leaf"],
    },
)


@pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_forced_calls_are_read_and_valid(row: Format, as_tokens: bool) -> None:
    words = vocabulary(row, as_tokens)
    chosen = Dialect(row, None, words.added, words.special)
    ended = 0
    for toolbox in (
        Toolbox.checked(TOOLS, Mode.REQUIRED),
        Toolbox.naming(TOOLS, "weather"),
        Toolbox.checked([TREE], Mode.REQUIRED, parallel=False),
    ):
        grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
        assert grammar is not None
        template = compiled(words, grammar)
        for seed in range(6):
            tokens = walk(words, template.deep_copy(), seed, STEPS)
            if tokens is None:
                continue
            ended += 1
            reply = read(words, chosen, toolbox, tokens)
            assert reply.calls, words.tokenizer.decode(list(tokens), skip_special_tokens=False)
            assert not reply.text
            assert toolbox.parallel or len(reply.calls) == 1
            check(reply, toolbox)
    assert ended >= 9


@pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_free_text_and_calls(row: Format, as_tokens: bool) -> None:
    """With `auto` text ends anywhere, and what follows the marker is held."""
    words = vocabulary(row, as_tokens)
    chosen = Dialect(row, None, words.added, words.special)
    toolbox = Toolbox.checked(TOOLS)
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    template = compiled(words, grammar)
    # Chance would never spell a marker.
    called = "Well.\n" + row.section[0] + row.opens[0] + row.pads[0] if row.opens else "{"
    for begins in ("", "{" if row.bare == "{" else "[" if row.bare else called):
        calls = 0
        for seed in range(8):
            start = "" if row.name == "harmony" else begins
            tokens = walk(words, template.deep_copy(), seed, STEPS, start)
            if tokens is not None:
                reply = read(words, chosen, toolbox, tokens)
                check(reply, toolbox)
                calls += bool(reply.calls)
                assert reply.calls or not start
                assert reply.text in ("", "Well.") or not start
    assert calls


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cohere", "<|START_RESPONSE|>Hi.<|END_RESPONSE|>"),
        ("kimi_k3", "<|open|>response<|sep|>Hi.<|close|>response<|sep|>"),
        ("solar_open", "<|content|>Hi.<|end|>"),
    ],
)
def test_an_answer_may_stand_between_its_tokens(name: str, text: str) -> None:
    """Where a model that has tools calls none."""
    words = vocabulary(NAMED[name], as_tokens=True)
    chosen = Dialect(NAMED[name], None, words.added, words.special)
    toolbox = Toolbox.checked(TOOLS)
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    matcher = compiled(words, grammar)
    tokens = words.tokenizer.encode(text, add_special_tokens=False).ids
    assert matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
    assert read(words, chosen, toolbox, tokens).text == "Hi."


THINK = REASONING["think"]


@pytest.mark.parametrize("as_tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", ["hermes", "llama3_json", "qwen3_coder", "mistral", "kimi_k2"])
@pytest.mark.parametrize("start", list(Start), ids=lambda start: start.name)
@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.REQUIRED])
def test_reasoning_is_free_and_calls_follow(
    mode: Mode, start: Start, name: str, as_tokens: bool
) -> None:
    tags = ("<think>", "</think>") if as_tokens else ()
    words = vocabulary(NAMED[name], as_tokens, *tags)
    chosen = Dialect(NAMED[name], THINK, words.added, words.special)
    toolbox = Toolbox.checked([TREE, *TOOLS[1:]], mode)
    grammar = reply_grammar(chosen, toolbox, start)
    assert grammar is not None
    template = compiled(words, grammar)
    ended, thoughts = 0, 0
    begins = "I think.\n</think>" if start is Start.THINKS and not as_tokens else ""
    for seed in range(12):
        tokens = walk(words, template.deep_copy(), seed, STEPS, begins)
        if tokens is None:
            continue
        ended += 1
        reply = read(words, chosen, toolbox, tokens, thinking=start is Start.THINKS)
        thoughts += bool(reply.reasoning)
        check(reply, toolbox)
        if mode is Mode.REQUIRED:
            assert reply.calls and not reply.text
    assert ended
    if start is Start.ANSWER and mode is Mode.REQUIRED:
        assert not thoughts


@pytest.mark.parametrize(
    ("name", "begins", "end", "behind"),
    [
        ("hermes", "<think>", "</think>", "Hi"),
        ("harmony", "<|channel|>analysis<|message|>", "<|end|>",
         "<|start|>assistant<|channel|>final<|message|>Hi"),
    ],
)  # fmt: skip
def test_thoughts_end_after_a_budget(name: str, begins: str, end: str, behind: str) -> None:
    words = vocabulary(NAMED[name], True, "<think>", "</think>")
    thoughts = REASONING["openai_gptoss" if name == "harmony" else "think"]
    chosen = Dialect(NAMED[name], thoughts, words.added, words.special)
    assert chosen.counts_thoughts
    start = Start.ANSWER if name == "harmony" else Start.MAY_THINK
    grammar = reply_grammar(chosen, NO_TOOLS, start, budget=5)
    assert grammar is not None
    encoded = [words.tokenizer.encode(t, add_special_tokens=False).ids for t in (begins, behind)]
    close = words.added[end]
    for thought in range(7):
        matcher = compiled(words, grammar)
        assert matcher.consume_tokens(encoded[0])
        letter = words.tokenizer.token_to_id("x")
        assert matcher.try_consume_tokens([letter] * thought) == min(thought, 5)
        allowed = np.unpackbits(
            np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little"
        )
        assert allowed[close] and (allowed.sum() == 1) == (thought >= 5)
        assert matcher.consume_tokens([close, *encoded[1]]) and matcher.is_accepting()


def test_text_that_marks_thoughts_cannot_count_them() -> None:
    words = vocabulary(NAMED["hermes"], False)
    assert not Dialect(NAMED["hermes"], THINK, words.added, words.special).counts_thoughts
    assert Dialect(NAMED["hermes"], None, words.added, words.special).counts_thoughts


def test_an_answer_has_a_grammar_of_its_own() -> None:
    """`response_format` beside tools holds what is no call, from the token behind reasoning."""
    words = vocabulary(NAMED["hermes"], True, "<think>", "</think>")
    chosen = Dialect(NAMED["hermes"], THINK, words.added, words.special)
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    answer = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    for toolbox in (Toolbox.checked([TREE]), NO_TOOLS):
        for start in Start:
            grammar = reply_grammar(chosen, toolbox, start, answer)
            assert grammar is not None
            template = compiled(words, grammar)
            kinds = set()
            for seed in range(20):
                tokens = walk(words, template.deep_copy(), seed, STEPS)
                if tokens is None:
                    continue
                thinking = start is Start.THINKS
                reply = read(words, chosen, toolbox, tokens, thinking=thinking)
                kinds.add(bool(reply.calls))
                check(reply, toolbox)
                if not reply.calls:
                    jsonschema.validate(json.loads(reply.text), schema)
            assert False in kinds


DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
VOCABULARIES: dict[str, Vocabulary] = {}


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a": DIGIT}, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": DIGIT},
         "anyOf": [{"type": "object", "properties": {"b": DIGIT}, "required": ["b"]}]},
    ],
    ids=["required", "any-of"],
)  # fmt: skip
def test_a_tool_may_need_what_its_object_does_not_name(parameters: dict[str, Any]) -> None:
    """Such an object stays open: closed, no value would be one of it."""
    words = vocabulary(NAMED["hermes"], True)
    chosen = Dialect(NAMED["hermes"], None, words.added, words.special)
    toolbox = Toolbox.checked([Tool.checked("f", None, parameters)], Mode.REQUIRED)
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    template = compiled(words, grammar)
    replies = [
        read(words, chosen, toolbox, tokens)
        for seed in range(10)
        if (tokens := walk(words, template.deep_copy(), seed, STEPS)) is not None
    ]
    assert replies
    for reply in replies:
        jsonschema.validate(json.loads(reply.calls[0].arguments), parameters)


def schemas(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of values, as tools have them."""
    text = st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={"maxLength": st.integers(0, 6), "description": st.just("d")},
    )
    leaves = st.one_of(
        text,
        st.just({"type": "string", "pattern": "^[a-f]{2,4}$"}),
        st.just({"type": "string", "minLength": 1, "maxLength": 3}),
        st.sampled_from([{"enum": ["a", "b c", 'q"']}, {"enum": [1, None]}, {"const": "x"}]),
        st.sampled_from([{"type": "integer"}, {"type": "number"}, {"type": "boolean"}]),
        st.just({"type": "integer", "minimum": -3, "maximum": 40}),
        st.just({"type": ["string", "null"], "maxLength": 4}),
        st.just({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        st.just({"type": "null"}),
    )
    if not depth:
        return leaves
    inner = schemas(depth - 1)
    lists = inner.map(lambda item: {"type": "array", "items": item, "minItems": 1, "maxItems": 2})
    return st.one_of(leaves, lists, objects(inner))


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from(["a", "b", "key_c", "key d", "type"])
    return st.dictionaries(keys, inner, max_size=3).flatmap(
        lambda found: st.sets(st.sampled_from(sorted(found) or ["a"])).map(
            lambda required: {
                "type": "object",
                "properties": found,
                "required": sorted(required & set(found)),
            }
        )
    )


ODD = (
    {"format": []},
    {"format": {"a": 1}},
    {"anyOf": [{}, True]},
    {"anyOf": [False]},
    {"anyOf": [False, {"type": "integer"}]},
    {"enum": [[1], {"a": 1}]},
    {"items": True},
    {"properties": {"b": False, "we ird": {}, "": {}}},
    {"maxLength": 1e300, "type": "string"},
    {"minimum": 10**400},
    {"$ref": "#"},
    {"if": 5},
)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_odd_schemas_are_grammars_or_refused(row: Format) -> None:
    """Nothing else is raised; some of what cannot be is for the grammar library to refuse."""
    chosen = Dialect(row, None, {}, frozenset())
    for odd in ODD:
        parameters = {"type": "object", "properties": {"a": odd}, "required": ["a"]}
        tool = Tool.checked("f", None, parameters)
        with contextlib.suppress(BadGrammar):
            assert reply_grammar(chosen, Toolbox.checked([tool], Mode.REQUIRED), Start.ANSWER)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_what_must_not_be_there_is_not(row: Format) -> None:
    words = VOCABULARIES.setdefault(row.name, vocabulary(row, as_tokens=True))
    chosen = Dialect(row, None, words.added, words.special)
    parameters = {"type": "object", "properties": {"a": False, "b": DIGIT}}
    toolbox = Toolbox.naming([Tool.checked("f", None, parameters)], "f")
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    template, found = compiled(words, grammar), 0
    for seed in range(8):
        if (tokens := walk(words, template.deep_copy(), seed)) is not None:
            [call] = read(words, chosen, toolbox, tokens).calls
            assert not json.loads(call.arguments).keys() - {"b"}
            found += 1
    assert found


def _is_uri(value: str) -> bool:
    parts = urlsplit(value)
    return bool(parts.scheme and parts.hostname)


def _is_host(value: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9.-]{1,253}", value)) and ".." not in value


READ_AS: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "date-time": datetime.fromisoformat,
    "duration": lambda value: re.fullmatch(r"P(?=.)(\d+[YMWD])?(T\d+[HMS])?", value) or 1 / 0,
    "email": lambda value: all(map(_is_host, value.split("@")[1:])) and value.count("@") == 1,
    "hostname": _is_host,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "uuid": UUID,
    "uri": _is_uri,
}


@pytest.mark.parametrize("format_name", sorted(ENFORCED))
@pytest.mark.parametrize("row", ["qwen3_coder", "gemma4"])
def test_formats_of_strings_without_quotes(row: str, format_name: str) -> None:
    """Each is a string of that format, also where it need not be `strict`."""
    assert set(READ_AS) == ENFORCED == TEXT_FORMATS.keys()
    style = NAMED[row]
    words = vocabulary(style, as_tokens=True)
    chosen = Dialect(style, None, words.added, words.special)
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", "format": format_name}},
        "required": ["x"],
    }
    toolbox = Toolbox.naming([Tool.checked("f", None, schema, strict=True)], "f")
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    found = 0
    for seed in range(6):
        tokens = walk(words, compiled(words, grammar), seed)
        if tokens is None:
            continue
        [call] = read(words, chosen, toolbox, tokens).calls
        value = json.loads(call.arguments)["x"]
        assert READ_AS[format_name](value), value
        found += 1
    assert found


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), objects(schemas()), st.integers(0, 1000))
def test_any_schema_in_any_format(row: Format, schema: dict[str, Any], seed: int) -> None:
    if row.name not in VOCABULARIES:
        VOCABULARIES[row.name] = vocabulary(row, as_tokens=len(VOCABULARIES) % 3 > 0)
    words = VOCABULARIES[row.name]
    if isinstance(row.style, Pythonic) and any(not k.isidentifier() for k in schema["properties"]):
        return  # no names of arguments there
    chosen = Dialect(row, None, words.added, words.special)
    toolbox = Toolbox.naming([Tool.checked("f", None, schema)], "f")
    try:
        grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    except BadGrammar:
        assert isinstance(row.style, Elements)  # which cannot write names that nobody knows
        return
    assert grammar is not None
    tokens = walk(words, compiled(words, grammar), seed)
    if tokens is not None:
        reply = read(words, chosen, toolbox, tokens)
        assert len(reply.calls) == 1 and not reply.text
        check(reply, toolbox)


@needs_assets
@pytest.mark.parametrize(
    ("name", "eos", "format_name"),
    [
        ("qwen3", "<|im_end|>", "hermes"),
        ("deepseek-v3", "<｜end▁of▁sentence｜>", "deepseek_v3"),
        ("mistral-tekken-240911", "</s>", "mistral_v3"),
        ("llama-3.1", "<|eot_id|>", "llama3_json"),
    ],
)
def test_real_vocabularies(name: str, eos: str, format_name: str) -> None:
    """Markers are those tokens that real vocabularies have."""
    data = gzip.decompress((assets() / "tokenizers" / name / "tokenizer.json.gz").read_bytes())
    tokenizer = Tokenizer.from_str(data.decode())
    end = tokenizer.token_to_id(eos)
    assert end is not None
    words = Vocabulary(tokenizer, end)
    chosen = Dialect(NAMED[format_name], None, words.added, words.special)
    assert format_name == "llama3_json" or chosen.alphabet.ids
    toolbox = Toolbox.checked(TOOLS, Mode.REQUIRED)
    grammar = reply_grammar(chosen, toolbox, Start.ANSWER)
    assert grammar is not None
    template = compiled(words, grammar)
    ended = 0
    for seed in range(8):
        tokens = walk(words, template.deep_copy(), seed, 400)
        if tokens is None:
            continue
        ended += 1
        reply = read(words, chosen, toolbox, tokens)
        assert reply.calls and not reply.text
        check(reply, toolbox)
    assert ended
