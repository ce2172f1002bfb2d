"""Structural tags admit what their formats say, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

import penstock_launcher
from penstock_router.structured import grammar_from

TOKENIZER = Path(penstock_launcher.__file__).parent / "demo_model" / "tokenizer.json"
DIGIT = {"type": "json_schema", "json_schema": {"type": "integer", "minimum": 0, "maximum": 9}}
ANY = {"type": "any_text"}
THINK = {"type": "tag", "begin": "<t>", "content": ANY, "end": "</t>"}
HI = {"type": "const_string", "value": "hi"}
LETTERS = {"type": "regex", "pattern": "[a-z]+"}
CALLS = [{"type": "tag", "begin": f"<f={name}>", "content": DIGIT, "end": "</f>"} for name in "ab"]
TRIGGERED = {"type": "triggered_tags", "triggers": ["<f="], "tags": CALLS}
USER = {"type": "token", "token": "<|user|>"}
SYSTEM = {"type": "token", "token": 3}
TOKEN_TAG = {"type": "tag", "begin": USER, "content": {"type": "any_tokens"}, "end": SYSTEM}


def sequence(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"type": "sequence", "elements": list(elements)}


# a format, what is of it, and what is not
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "a string": (HI, ["hi"], ["", "h", "hi!"]),
    "any text": (ANY, ["", "<a>\nb"], []),
    "any text without some": (
        {**ANY, "excludes": ["bad", "worse"]}, ["", "ba\nd"], ["a bad one", "worse"]
    ),
    "a few characters": (
        {"type": "tag", "begin": "<t>", "content": {**ANY, "max_chars": 3}, "end": "</t>"},
        ["<t></t>", "<t>äöü</t>"], ["<t>abcd</t>"],
    ),
    "an expression": (LETTERS, ["abc"], ["", "a1"]),
    "a value": (DIGIT, ["7"], ["12", "x"]),
    "GBNF": ({"type": "grammar", "grammar": 'root ::= "yes" | "no"'}, ["yes", "no"], ["ye", "x"]),
    "Lark": ({"type": "grammar", "grammar": 'start: "a" INT\n%import common.INT'}, ["a12"], ["a"]),
    "a tag": (
        THINK, ["<t></t>", "<t>1 < 2 </ t>\n</t>"], ["<t>", "<t></t>x", "<t></t></t>", "x<t></t>"]
    ),
    "a tag with two ends": ({**THINK, "end": ["</t>", "."]}, ["<t>a.", "<t>a</t>"], ["<t>a.</t>"]),
    "a tag without an end": ({**THINK, "end": ""}, ["<t>", "<t>ab</t>"], ["t"]),
    "an expression in a tag": (
        {"type": "tag", "begin": "[", "content": {"type": "regex", "pattern": ".*"}, "end": "]!"},
        ["[]!", "[a]b]!", "[/]!"], ["[a]", "[a]!b"],
    ),
    "thoughts and a value": (sequence(THINK, DIGIT), ["<t>5</t>5"], ["5", "<t></t>x"]),
    "text up to a string": (
        sequence(ANY, HI, DIGIT), ["hi5", "oh, hi5"], ["hi", "oh 5", "hi hi5"]
    ),
    "text up to a tag": (
        sequence(ANY, THINK, HI), ["<t></t>hi", "a<t>b</t>hi"], ["hi", "a<t>b</t>", "<t></t>"]
    ),
    "text up to a token": (sequence(ANY, USER, HI), ["a<|user|>hi"], ["ahi", "a<|user|>"]),
    "an expression up to a string": (
        sequence(LETTERS, {"type": "const_string", "value": "end"}), ["xend", "endend"], ["end"]
    ),
    "one of two": (
        {"type": "tag", "begin": "<", "content": {"type": "or", "elements": [HI, ANY]}, "end": ">"},
        ["<hi>", "<ho>", "<>"], ["<hi", "<a>b>"],
    ),
    "perhaps": (
        sequence({"type": "optional", "content": THINK}, HI), ["hi", "<t>a</t>hi"], ["<t>a</t>", ""]
    ),
    "perhaps, in a tag": (
        {"type": "tag", "begin": "<", "content": {"type": "optional", "content": HI}, "end": ">"},
        ["<>", "<hi>"], ["<", "<hihi>"],
    ),
    "as often as you like": ({"type": "star", "content": HI}, ["", "hi", "hihi"], ["hih"]),
    "once or more": ({"type": "plus", "content": HI}, ["hi", "hihi"], ["", "h"]),
    "some times": (
        {"type": "repeat", "content": HI, "min": 1, "max": 2}, ["hi", "hihi"], ["", "hihihi"]
    ),
    "at least some times": (
        {"type": "repeat", "content": HI, "min": 2, "max": -1}, ["hihi", "hihihi"], ["hi"]
    ),
    "tags with something between": (
        {"type": "tags_with_separator", "tags": CALLS, "separator": ","},
        ["", "<f=a>1</f>", "<f=a>1</f>,<f=b>2</f>"], ["<f=a>1</f>,", "<f=a>1</f><f=b>2</f>", "x"],
    ),
    "one tag": (
        {"type": "tags_with_separator", "tags": CALLS, "separator": ",", "at_least_one": True,
         "stop_after_first": True},
        ["<f=a>1</f>"], ["", "<f=a>1</f>,<f=b>2</f>"],
    ),
    "calls in text": (
        TRIGGERED, ["", "a <f b", "a <f=a>1</f> b <f=b>2</f>"], ["<f=", "<f=c>1</f>", "<f=a>x</f>"]
    ),
    "at least one call": (
        {**TRIGGERED, "at_least_one": True},
        ["<f=a>1</f>", "<f=b>1</f> and <f=a>2</f>."], ["", "a", "a <f=a>1</f>"],
    ),
    "no more than one call": (
        {**TRIGGERED, "stop_after_first": True}, ["", "a", "a <f=a>1</f>"], ["<f=a>1</f> b"]
    ),
    "just one call": (
        {**TRIGGERED, "at_least_one": True, "stop_after_first": True},
        ["<f=a>1</f>"], ["", "a", "a <f=a>1</f>", "<f=a>1</f><f=a>1</f>"],
    ),
    "thoughts and calls": (
        sequence(THINK, TRIGGERED),
        ["<t><f=x</t>", "<t></t>a <f=a>1</f> b"], ["", "<t></t> <f=c>", "a <f=a>1</f>"],
    ),
    "calls in a tag": (
        {"type": "tag", "begin": "<r>", "content": TRIGGERED, "end": "</r>"},
        ["<r></r>", "<r>a <f=b>2</f> b</r>"], ["<r>a", "<r></r>b", "<r><f=a></r>"],
    ),
    "calls without a word": (
        {**TRIGGERED, "excludes": ["no"]}, ["yes <f=a>1</f>"], ["no", "yes <f=a>1</f> no"]
    ),
    "words that lead to formats": (
        {"type": "dispatch", "rules": [["n=", DIGIT], ["say ", HI]]},
        ["", "a n=1 b say hi!", "n=2"], ["n=x", "say ho"],
    ),
    "a word that leads to a format once": (
        {"type": "dispatch", "rules": [["n=", DIGIT]], "loop": False}, ["a n=1", "a"], ["n=1 b"]
    ),
    "tokens": (TOKEN_TAG, ["<|user|>a b<|system|>"], ["<|user|>a", "a", "<|user|><|user|>"]),
    "tokens that lead to tags": (
        {"type": "token_triggered_tags", "trigger_tokens": [4],
         "tags": [{"begin": {"type": "token", "token": 4}, "content": DIGIT, "end": SYSTEM}],
         "exclude_tokens": ["<|assistant|>"]},
        ["", "a<|user|>1<|system|>b"], ["<|user|>x", "a<|system|>", "<|assistant|>"],
    ),
    "a token that leads to a format": (
        {"type": "token_dispatch", "rules": [[4, DIGIT]]}, ["a<|user|>1b"], ["<|user|>b"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return LLTokenizer(str(TOKENIZER))


def is_of(tokenizer: LLTokenizer, shape: dict[str, Any], text: str) -> bool:
    grammar = grammar_from("structural_tag", {"format": shape})
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar.text), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("name", CASES)
def test_what_a_format_admits(tokenizer: LLTokenizer, name: str) -> None:
    shape, yes, no = CASES[name]
    assert [text for text in yes if not is_of(tokenizer, shape, text)] == []
    assert [text for text in no if is_of(tokenizer, shape, text)] == []


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"type": "dance"}, "the type `dance`, which is not supported"),
        ({"type": ["tag"]}, "which is not supported"),
        ({**ANY, "max_tokens": 9}, "has `max_tokens` in a format of the type `any_text`"),
        ({**DIGIT, "style": "qwen_xml"}, "has the style `qwen_xml`"),
        (sequence(ANY, DIGIT), "has free text that nothing ends"),
        ({"type": "star", "content": ANY}, "has free text that nothing ends"),
        ({"type": "tags_with_separator", "tags": [{**THINK, "end": ""}]}, "nothing ends"),
        ({"type": "tag", "begin": "", "content": ANY, "end": "x"}, "in `begin` a string of 1 to"),
        ({**TRIGGERED, "triggers": ["<g="]}, "`<f=a>`, which no trigger begins"),
        ({**TRIGGERED, "tags": CALLS * 200}, "at most 256 `tags`. Given: 400"),
        ({"type": "token", "token": "user"}, "by their ids, or special ones as"),
        ({"type": "any_tokens", "exclude_tokens": [7]}, "in `exclude_tokens` special tokens"),
        ({"type": "repeat", "content": HI, "min": 3, "max": 2}, "not below `min`"),
        ({"type": "repeat", "content": HI, "min": 3, "max": 10**6}, "in `max` a number from 0"),
        ({"type": "grammar", "grammar": "root ::= " + '"a" ' * 600}, "2048 characters of GBNF"),
        ({"type": "grammar", "grammar": "start: x"}, "does not define: `x`"),
        ({"type": "dispatch", "rules": [["a"]]}, "pairs of a beginning and a format"),
        (
            {"type": "or", "elements": [{"type": "or", "elements": [HI] * 250}] * 9},
            "at most 2048 parts",
        ),
    ],
)
def test_what_is_wrong_is_said(shape: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        grammar_from("structural_tag", {"format": shape})
