"""Tools with OpenAI's client against a real server: a model is held to calls that are valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from support.server import Server

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "days", "unit"],
        },
    },
}
ROUTE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "plan_route",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "stops": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"x": {"type": "integer", "maximum": 99, "minimum": 0}},
                        "required": ["x"],
                        "additionalProperties": False,
                    },
                    "minItems": 1,
                    "maxItems": 2,
                },
                "fast": {"type": "boolean"},
            },
            "required": ["stops", "fast"],
            "additionalProperties": False,
        },
    },
}
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in (WEATHER, ROUTE)}
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(demo_server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo_server.url + "/v1", api_key="-", max_retries=0) as client:
        yield client


def check(call: Any) -> None:
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


@pytest.mark.parametrize("seed", range(4))
def test_required_calls_are_valid(client: openai.OpenAI, seed: int) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=ASK, tools=[WEATHER, ROUTE], tool_choice="required",
        temperature=1.5, seed=seed, max_tokens=400, parallel_tool_calls=False,
    )  # fmt: skip
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.content is None and len(choice.message.tool_calls) == 1
    check(choice.message.tool_calls[0])


def test_a_named_function_streams(client: openai.OpenAI) -> None:
    """The helper of OpenAI's client folds the stream."""
    with client.chat.completions.stream(
        model="tgi", messages=ASK, tools=[WEATHER, ROUTE], temperature=1.0, seed=3, max_tokens=400,
        tool_choice={"type": "function", "function": {"name": "plan_route"}},
    ) as stream:  # fmt: skip
        pieces = [e for e in stream if e.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    assert len(pieces) > 3
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.function.name == "plan_route" and call.id.startswith("call_")
    check(call)


def test_auto_is_text_or_valid_calls(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=ASK, tools=[WEATHER, ROUTE], temperature=0, max_tokens=200, n=2
    )
    for choice in answer.choices:
        for call in choice.message.tool_calls or []:
            if choice.finish_reason == "tool_calls":
                check(call)


def test_a_conversation_goes_on_behind_a_result(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=ASK, tools=[WEATHER], tool_choice="required", temperature=0,
        max_tokens=400, parallel_tool_calls=False,
    )  # fmt: skip
    message = answer.choices[0].message
    assert message.tool_calls is not None
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "22 degrees"}
    answer = client.chat.completions.create(
        model="tgi", messages=[*ASK, message, result], tools=[WEATHER], tool_choice="none",
        max_tokens=30,
    )  # fmt: skip
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_what_strict_cannot_have_is_refused(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    function: Any = {"name": "f", "strict": True, "parameters": schema}
    with pytest.raises(openai.UnprocessableEntityError, match="uniqueItems"):
        client.chat.completions.create(
            model="tgi", messages=ASK, tools=[{"type": "function", "function": function}]
        )


def test_an_answer_beside_tools_has_its_own_schema(client: openai.OpenAI) -> None:
    digit = {"type": "integer", "maximum": 9, "minimum": 0}
    schema = {"type": "object", "properties": {"n": digit}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    named: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tgi", messages=ASK, tools=[ROUTE], response_format=named, temperature=1.0,
            seed=seed, max_tokens=300, parallel_tool_calls=False,
        )  # fmt: skip
        choice = answer.choices[0]
        if choice.message.tool_calls:
            check(choice.message.tool_calls[0])
        elif choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content or ""), schema)
