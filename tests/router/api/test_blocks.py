"""Tools and reasoning of /v1/responses and /v1/messages, which say what chat says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from penstock_router.text import TextModel
from router.api.test_messages import events_of
from router.api.test_tools import CALL, SECOND, TIME, WEATHER, saying, text

__all__ = ["text"]  # the fixture: a model whose template shows tools and thoughts

THOUGHT = "I think.</think>"
ASK = "What is the weather in Paris?"
FUNCTION = WEATHER["function"]
TOOL_OF_RESPONSES = {"type": "function", **FUNCTION}
TOOL_OF_MESSAGES = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
ARGUMENTS = {"city": "Paris", "days": 2}


async def test_a_response_with_all_kinds(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, f"{THOUGHT}I look.\n{CALL}\n{SECOND}"))
    body = {
        "input": ASK,
        "tools": [TOOL_OF_RESPONSES, {"type": "function", "name": "get_time"}],
        "chat_template_kwargs": {"enable_thinking": True},
    }
    status, answer = await client.post("/v1/responses", body)
    assert status == 200, answer
    Response.model_validate(answer)
    thought, said, first, second = answer["output"]
    assert thought["type"] == "reasoning"
    assert thought["content"] == [{"type": "reasoning_text", "text": "I think."}]
    assert said["content"][0]["text"] == "I look."
    assert first["type"] == second["type"] == "function_call"
    assert (first["name"], second["name"]) == ("get_weather", "get_time")
    assert json.loads(first["arguments"]) == ARGUMENTS
    assert first["call_id"] != second["call_id"] and first["id"] != second["id"]
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    _, streamed = await client.stream("/v1/responses", body | {"stream": True})
    events = events_of(streamed)
    adapter = TypeAdapter(ResponseStreamEvent)
    for event in events:
        adapter.validate_python(event)
    ended = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    final = events[-1]["response"]
    assert final["output"] == ended

    def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in items]

    assert without_ids(ended) == without_ids(answer["output"])
    joined: dict[int, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"]
            joined[place] = joined.get(place, "") + event["delta"]
    assert joined == {0: "I think.", 1: "I look.", 2: first["arguments"], 3: "{}"}


async def test_a_message_with_all_kinds(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, f"{THOUGHT}I look.\n{CALL}"))
    body = {
        "max_tokens": 200,
        "messages": [{"role": "user", "content": ASK}],
        "tools": [TOOL_OF_MESSAGES],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    status, answer = await client.post("/v1/messages", body)
    assert status == 200, answer
    thought, said, call = answer["content"]
    assert thought == {"type": "thinking", "thinking": "I think.", "signature": ""}
    assert said == {"type": "text", "text": "I look."}
    assert call == {**call, "type": "tool_use", "name": "get_weather", "input": ARGUMENTS}
    assert answer["stop_reason"] == "tool_use"
    _, streamed = await client.stream("/v1/messages", body | {"stream": True})
    events = events_of(streamed)
    opened = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
    assert opened == ["thinking", "text", "tool_use"]
    joined = ["", "", ""]
    for event in events:
        if event["type"] == "content_block_delta" and event["delta"]["type"] != "signature_delta":
            [piece] = [v for k, v in event["delta"].items() if k != "type"]
            joined[event["index"]] += piece
    assert joined[:2] == ["I think.", "I look."] and json.loads(joined[2]) == ARGUMENTS
    changes = [e["delta"]["stop_reason"] for e in events if e["type"] == "message_delta"]
    assert changes == ["tool_use"]


async def test_the_way_back(serve: Any, text: TextModel) -> None:
    """Calls, their results and thoughts reach the template as chat's do."""
    client = await serve(saying(text, "Sunny."))
    call = {"name": "get_weather", "arguments": json.dumps(ARGUMENTS, separators=(",", ":"))}
    chat = {
        "messages": [
            {"role": "user", "content": ASK},
            {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.",
             "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        ],
        "tools": [WEATHER],
    }  # fmt: skip
    responses = {
        "input": [
            {"role": "user", "content": ASK},
            {"type": "reasoning", "summary": [],
             "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", **call},
            {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        ],
        "tools": [TOOL_OF_RESPONSES],
    }  # fmt: skip
    use = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": ARGUMENTS}
    result = {"type": "tool_result", "tool_use_id": "c1",
              "content": [{"type": "text", "text": "sun"}]}  # fmt: skip
    messages = {
        "max_tokens": 20,
        "messages": [
            {"role": "user", "content": ASK},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "I look."}, use]},
            {"role": "user", "content": [result]},
        ],
        "tools": [TOOL_OF_MESSAGES],
    }  # fmt: skip
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/responses", responses),
        ("/v1/messages", messages),
    ):
        status, answer = await client.post(path, body)
        assert status == 200, answer
    first, *others = [[*request.prompt] for request in client.engine.requests]
    assert others == [first, first]
    count = {name: messages[name] for name in ("messages", "tools")}
    _, counted = await client.post("/v1/messages/count_tokens", count)
    assert counted == {"input_tokens": len(first)}


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        ({"type": "auto"}, True),
        ({"type": "any"}, True),
        ({"type": "tool", "name": "get_weather"}, True),
        ({"type": "none"}, False),
    ],
)
async def test_choices_of_messages(
    serve: Any, text: TextModel, choice: dict[str, Any], shown: bool
) -> None:
    client = await serve(saying(text, CALL))
    body = {
        "max_tokens": 100,
        "messages": [{"role": "user", "content": ASK}],
        "tools": [TOOL_OF_MESSAGES],
        "tool_choice": choice,
    }
    status, answer = await client.post("/v1/messages", body)
    assert status == 200, answer
    assert (answer["content"][0]["type"] == "tool_use") == shown


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "function", "name": "get_weather"},
        {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    ],
)
async def test_choices_of_responses(serve: Any, text: TextModel, choice: Any) -> None:
    client = await serve(saying(text, CALL))
    tools = [TOOL_OF_RESPONSES, {"type": "function", "name": TIME["function"]["name"]}]
    body = {"input": ASK, "tools": tools, "tool_choice": choice}
    status, answer = await client.post("/v1/responses", body)
    assert status == 200, answer
    assert [item["type"] for item in answer["output"]] == ["function_call"]
    assert answer["tool_choice"] == choice


async def test_a_call_that_is_cut(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL[:-30], ends=False))
    tokens = len(client.engine.script)
    body = {"input": ASK, "tools": [TOOL_OF_RESPONSES], "max_output_tokens": tokens}
    _, answer = await client.post("/v1/responses", body)
    assert answer["status"] == answer["output"][-1]["status"] == "incomplete"
    messages = {"messages": [{"role": "user", "content": ASK}], "tools": [TOOL_OF_MESSAGES]}
    _, answer = await client.post("/v1/messages", messages | {"max_tokens": tokens})
    assert answer["stop_reason"] == "max_tokens" and answer["content"][-1]["input"] == {}


async def test_answers_in_a_schema(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, "{}"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    shape = {"type": "json_schema", "schema": schema}
    user = {"messages": [{"role": "user", "content": ASK}]}
    chat = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    for path, body in (
        ("/v1/chat/completions", {**user, "response_format": chat}),
        ("/v1/responses", {"input": ASK, "text": {"format": {**shape, "name": "answer"}}}),
        ("/v1/messages", {**user, "max_tokens": 9, "output_config": {"format": shape}}),
        ("/v1/messages", {**user, "max_tokens": 9, "output_format": shape}),
    ):
        status, answer = await client.post(path, body)
        assert status == 200, answer
    first, *others = [request.grammar for request in client.engine.requests]
    assert first is not None and others == [first] * 3
