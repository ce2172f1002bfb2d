"""Response templates of checkpoints, held against what transformers makes of answers with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers.utils.chat_parsing import parse_response

from penstock_router.tools.dialect import Dialect, choose
from penstock_router.tools.events import joined
from penstock_router.tools.formats import FALLBACK, NAMED
from penstock_router.tools.parser import ReplyParser
from penstock_router.tools.response_template import Unreadable, read_template
from support.tool_samples import SAMPLES, TOOLS

CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
THINK = {"open": "<think>", "close": "</think>"}


def template(calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"thinking": THINK, "tool_calls": {"repeats": True, **calls}, "content": {}}
        | fields,
    }


TEMPLATES = {
    "hermes": template(
        {"open_pattern": r"\s*<tool_call>", "close": "</tool_call>", "content": "json",
         "transform": {"type": "function", "function": "{content}"}}
    ),
    "qwen3_coder": template(
        {
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"
            },
            "transform": CALL,
        }
    ),
    "gemma4": template(
        {
            "open_pattern": r"<\|tool_call>call:(?P<name>\w+)",
            "close": "<tool_call|>",
            "content": "json",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": CALL,
        },
        thinking={"open": "<|channel>thought\n", "close": "<channel|>"},
    ),
    "kimi_k2": template(
        {
            "open_pattern": r"<\|tool_call_begin\|>functions\.(?P<name>\w+):.*?"
            r"<\|tool_call_argument_begin\|>",
            "close": "<|tool_call_end|>",
            "content": "json",
            "transform": CALL,
        }
    ),
    "cohere": template(
        {
            "open": "<|START_ACTION|>",
            "close": "<|END_ACTION|>",
            "content": "json",
            "transform": {"function": {"name": "{tool_name}", "arguments": "{parameters}"}},
            "transform_each": True,
            "repeats": False,
        },
        content={"open": "<|START_RESPONSE|>", "close": "<|END_RESPONSE|>"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_are_those_of_transformers(name: str) -> None:
    """For samples of the format, without what `xml-inline` leaves as text."""
    text = next(s.text for s in SAMPLES if s.format == name)
    text = text.replace("<tool_call|><|tool_call>get_time", "<tool_call|><|tool_call>call:get_time")
    row, reasoning = read_template(TEMPLATES[name])
    assert row is not None and reasoning is not None
    dialect = Dialect(row, reasoning, {}, frozenset())
    parser = ReplyParser(dialect, TOOLS)
    thought = f"{reasoning.opens[0]}\nHm.\n{reasoning.closes[0]}\n"
    reply = joined([*parser.feed(thought + text), *parser.end()])
    prefix = "<|im_start|>assistant\n"
    theirs = parse_response(thought + text, TEMPLATES[name], prefix=prefix)
    assert reply.reasoning == theirs["thinking"] == "Hm."
    calls = [call["function"] for call in theirs["tool_calls"]]
    assert [call.name for call in reply.calls] == [call["name"] for call in calls]
    for call, own in zip(calls, reply.calls, strict=True):
        arguments = call["arguments"]
        if name == "qwen3_coder":  # values are text there, as no schema says what they are
            assert arguments.keys() == json.loads(own.arguments).keys()
        else:
            assert arguments == json.loads(own.arguments)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ([], "version"),
        ({"version": 2}, "version"),
        ({"fields": {}, "more": 1}, "unknown key `more`"),
        ({"fields": {"content": {"opens": "x"}}}, "unknown key `content.opens`"),
        (template({"open": "<a>", "content": "kv-lines"}), "calls of the kind"),
        (template({"open_pattern": "(a|b)", "content": "json"}), "a pattern of another form"),
        (template({"open_pattern": "(", "content": "json"}), "a pattern that is none"),
        (template({"open_pattern": ".*", "content": "json"}), "what opens a call"),
    ],
)
def test_what_cannot_be_taken_apart_is_said(spec: Any, what: str) -> None:
    with pytest.raises(Unreadable, match=what.replace("(", r"\(")):
        read_template(spec)


def test_who_says_how_answers_are_read() -> None:
    chat = "{% if tools %}[TOOL_CALLS]{% endif %}"
    assert choose(chat, None, None, None)[0] is NAMED["mistral_v3"]
    assert choose(chat, TEMPLATES["hermes"], "auto", "auto")[0].name == "response_template"
    assert choose(chat, {"version": 2}, None, None)[0] is NAMED["mistral_v3"]
    row, reasoning = choose(chat, TEMPLATES["hermes"], "pythonic", "none")
    assert row is NAMED["pythonic"] and reasoning is None
    assert choose(None, None, None, None) == (FALLBACK, None)
    with pytest.raises(ValueError, match="`--tool-call-parser` must be one of auto, none, apertus"):
        choose(None, None, "nonsense", None)
    with pytest.raises(ValueError, match="`--reasoning-parser`"):
        choose(None, None, None, "nonsense")
