"""What clients write, as grammars that are compiled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from penstock_router.grammar import GrammarKind
from penstock_router.request import BadGrammar
from penstock_router.structured import grammar_from
from penstock_router.structured.json_schema import MAX_BYTES, WHITE_SPACE, bounded, json_schema
from penstock_router.structured.lark import converted
from penstock_router.structured.meant import as_meant
from support.assets import assets

SEED = "003_7c92406212fa7cf2.txt"


def schema_of(value: object, **style: Any) -> dict[str, Any]:
    grammar = json_schema(value, **style)
    assert grammar.kind is GrammarKind.JSON_SCHEMA
    loaded: dict[str, Any] = json.loads(grammar.text)
    return loaded


def test_white_space_ends_whatever_a_client_says() -> None:
    assert schema_of({})["x-guidance"] == {"whitespace_pattern": WHITE_SPACE}
    assert bounded(r"[\n *+]*") == r"[\n *+]{0,64}"
    assert bounded(r" +|\*{2,}") == r" {1,64}|\*{2,64}"
    assert bounded("[ ]?") == "[ ]?"
    compact = schema_of({}, compact=True)["x-guidance"]
    assert compact["whitespace_flexible"] is False and compact["key_separator"] == ": "


def test_objects_are_closed_where_they_do_not_say() -> None:
    nested = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}}}}
    closed = schema_of(nested, closed=True)
    assert closed["additionalProperties"] is closed["properties"]["a"]["additionalProperties"]
    assert closed["additionalProperties"] is False


def test_the_type_that_a_schema_leaves_out() -> None:
    """TGI's guide writes schemas so, and its grammar made objects of them."""
    inner = {"properties": {"b": {"items": {"minLength": 1}}}, "required": ["b"]}
    typed = schema_of({"properties": {"a": inner}, "required": ["a"], "$defs": {"d": inner}})
    made = {
        "type": "object",
        "properties": {
            "b": {"type": "array", "items": {"type": "string", "minLength": 1}},
        },
        "required": ["b"],
        "additionalProperties": False,
    }
    assert typed["type"] == "object" and typed["properties"]["a"] == made == typed["$defs"]["d"]


@pytest.mark.parametrize(
    "untouched",
    [
        {"enum": [{"properties": 1}, 2]},
        {"const": 1, "minLength": 2},
        {"type": ["object", "null"], "maxLength": 1},
        {"$ref": "#/$defs/a", "properties": {}, "$defs": {"a": True}},
        {"allOf": [{"minLength": 3}, {"type": "integer"}]},
        {"oneOf": [{"properties": {}}, {"type": "string"}]},  # an object matches the first alone
        {"oneOf": [{"items": {"properties": {"b": {}}}}, {"minimum": 1}]},
        {"minLength": 1, "minimum": 2},  # of two types
        {},
    ],
)
def test_types_that_may_stand_elsewhere_are_not_implied(untouched: dict[str, Any]) -> None:
    assert schema_of(untouched) == {**untouched, "x-guidance": {"whitespace_pattern": WHITE_SPACE}}


A, B = {"type": "object", "properties": {"a": {}}}, {"type": "object", "required": ["b"]}
REF = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "open_",
    [
        {**A, "required": ["b"]},
        {**A, "minProperties": 2},
        {**A, "minProperties": "2"},
        {**A, "required": [["a"]]},
        {**A, "required": {"a": 1}},
        {**A, "additionalProperties": True},
        {**A, "patternProperties": {"^x": {}}},
        {"allOf": [A, B]},
        {"oneOf": [A, {"type": "null"}]},
        {**A, "anyOf": [B]},
        {**REF, "anyOf": [B], "$defs": {"a": A}},
        {"items": {**REF, "required": ["b"]}, "type": "array", "$defs": {"a": A}},
        {"type": "array", "items": {"oneOf": [REF, {"type": "null"}]}, "$defs": {"a": A}},
        {**A, "properties": {"x": A}, "anyOf": [B]},
        {"allOf": [{"properties": {"a": A}}, {"properties": {"a": B}}]},
        {"type": "array", "items": [A], "allOf": [{"$ref": "#/items/0"}, B]},
    ],
)
def test_objects_stay_open_where_they_must(open_: dict[str, Any]) -> None:
    """Another place says more of them, or they need what they do not name."""
    assert schema_of(open_) == {**open_, "x-guidance": {"whitespace_pattern": WHITE_SPACE}}


def test_formats_that_any_string_has_say_nothing() -> None:
    for name in ("binary", "password", "path"):
        text = {"type": "string", "format": name}
        found = schema_of({"type": "array", "items": text, "format": ["path"]})
        assert found["items"] == {"type": "string"} and found["format"] == ["path"]
    assert schema_of({"format": "path"})["type"] == "string"
    named = {"type": "object", "properties": {"format": {"const": "path"}}}
    assert schema_of(named)["properties"] == named["properties"]


def test_objects_hold_what_they_name() -> None:
    """As vLLM, SGLang and TGI make them."""
    shut = {**A, "additionalProperties": False}
    for schema, closed in (
        (A, shut),
        ({"anyOf": [A, {"type": "null"}]}, {"anyOf": [shut, {"type": "null"}]}),
        ({**REF, "$defs": {"a": A}}, {**REF, "$defs": {"a": shut}}),
        ({"type": "array", "items": A}, {"type": "array", "items": shut}),
        ({"type": "object"}, {"type": "object"}),
        ({"allOf": [REF], "$defs": {"a": A}}, {"allOf": [REF], "$defs": {"a": shut}}),
        ({"type": "array", "items": {"properties": {"enum": A}}},
         {"type": "array", "items": {**shut, "properties": {"enum": shut}}}),
        ({**A, "properties": {"a": {"oneOf": [A, {"type": "null"}]}}},
         {**shut, "properties": {"a": {"oneOf": [A, {"type": "null"}]}}}),
        ({**A, "properties": {"a": A, "b": {"allOf": [A, B]}}},
         {**shut, "properties": {"a": shut, "b": {"allOf": [A, B]}}}),
    ):  # fmt: skip
        found = schema_of(schema)
        assert found.pop("x-guidance") and found == closed


NAMES = st.sampled_from(["a", "b"])
LEAVES = st.sampled_from(
    [{}, {"type": "integer"}, {"minLength": 1}, {"minimum": 0}, {"required": ["a"]},
     {"required": ["b"]}, {"$ref": "#/$defs/d"}, {"maxProperties": 1}]
)  # fmt: skip


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=2)
    parts = {"properties": st.dictionaries(NAMES, inner, max_size=2), "items": inner}
    parts |= dict.fromkeys(("anyOf", "allOf", "oneOf"), some)
    return st.fixed_dictionaries({}, optional=parts)


SCHEMAS = st.recursive(LEAVES, larger, max_leaves=6)
VALUES = st.recursive(
    st.sampled_from([None, 0, -1, "", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, SCHEMAS.filter(lambda one: "$ref" not in json.dumps(one)), VALUES)
def test_what_is_meant_is_a_part_of_what_is_said(schema: Any, definition: Any, value: Any) -> None:
    """A value of the narrower schema is one of the wider."""
    wider = {**schema, "$defs": {"d": definition}}
    narrower = as_meant(wider)
    if Draft202012Validator(narrower).is_valid(value):
        assert Draft202012Validator(wider).is_valid(value), narrower


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("json", "{", "must be a JSON schema"),
        ("json", 5, "must be a JSON schema: an object"),
        ("json", {"a": {"nullable": True}}, "`nullable`"),
        ("json", {"description": "x" * MAX_BYTES}, f"at most {MAX_BYTES} bytes"),
        ("json", {"properties": {f"p{i}": {} for i in range(1025)}}, "1024 properties"),
        ("json", {"anyOf": [{}] * 3072}, "3072 objects"),
        ("json", {"enum": list(range(4097))}, "4096 values"),
        ("json", json.loads("[" * 70 + "]" * 70) and {"a": json.loads("[" * 70 + "]" * 70)}, "64"),
        ("regex", "", "must be a regular expression"),
        ("regex", "a" * 20_000, "at most 16384 characters"),
        ("choice", [], "list of strings"),
        ("choice", ["a", ""], "no empty string"),
        ("grammar", "a: b", "rule `start`"),
        ("grammar", 'start: _list{"a"}\n_list{x}: x ("," x)*', "has the template `_list`"),
        ("grammar", "start: a B\nx: c", "does not define: `B`, `a`, `c`"),
        ("structural_tag", {"structures": []}, "`structures`"),
        ("structural_tag", {"format": {"type": "dance"}}, "`dance`"),
    ],
)
def test_what_is_wrong_is_said(kind: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        grammar_from(kind, value)


def test_gbnf_is_converted_later() -> None:
    """It takes seconds at worst, and a request is read on the event loop."""
    grammar = grammar_from("grammar", 'root ::= "a" [b-d]+')
    assert grammar.kind is GrammarKind.GBNF
    assert converted(grammar).kind is GrammarKind.LARK
    with pytest.raises(BadGrammar, match="not a grammar in GBNF"):
        converted(grammar_from("grammar", "root ::= [a"))
    with pytest.raises(ValueError, match="at most 32768 characters"):
        grammar_from("grammar", "root ::= " + "a" * 40_000)


def test_lark_as_users_write_it() -> None:
    text = grammar_from(
        "lark",
        '%import common.*\n?start: NAME "=" (NUMBER | STRING) WS? INT -> alias // NOT this\n'
        '!other: "x" | /[a-z"\\/]+/ | %json {"a": {"b": 1}}\n',
    ).text
    assert "common.*" not in text and "%import common.INT" in text
    assert "NAME: /" in text and "STRING: /" in text and "alias" in text
    assert grammar_from("choice", ["a", 'b"', "a"]).text == 'start: "a" | "b\\""\n'


def test_the_grammar_that_a_user_sent() -> None:
    """It needs a post-lexer; completed, with white space of its own, it is taken."""
    text = (assets().parent / "seeds" / SEED).read_text()
    grammar = text.split('python_grammar = """')[1].split('"""')[0]
    with pytest.raises(ValueError) as refused:
        grammar_from("grammar", grammar)
    for name in ("`simple_stmt`", "`stmt`", "`INDENT`", "`DEDENT`"):
        assert name in str(refused.value)
    whole = grammar.replace("INDENT stmt+ DEDENT", "BLANKS stmt+").replace("suite:", "suite: ")
    whole += '\nBLANKS: "    "\nsimple_stmt: "pass" NEWLINE\nstmt: simple_stmt\n'
    assert "NAME: /" in grammar_from("grammar", whole).text


def test_schemas_stand_as_they_are(tmp_path: Path) -> None:
    wanted = {"type": "object", "properties": {"ä": {"const": 1}}}
    assert schema_of(wanted) == schema_of(json.dumps(wanted))
    assert schema_of(wanted)["properties"] == wanted["properties"]
