"""Anthropic's /v1/messages and its count of tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.fake_engine import FakeEngine

PATH = "/v1/messages"
HI: dict[str, Any] = {
    "model": "claude",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "hi"}],
}
EMPTY_USAGE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def script(client: Any, text: str) -> list[int]:
    client.engine.script = client.text.tokenizer.encode(text)
    return list(client.engine.script)


def events_of(text: str) -> list[dict[str, Any]]:
    found = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert found[-1]["type"] == name.removeprefix("event: ")
    return found


async def test_whole(serve: Any) -> None:
    client = await serve(FakeEngine(cached_tokens=3))
    ids = script(client, "The capital</s>")
    status, answer = await client.post(PATH, HI, headers={"anthropic-version": "2023-06-01"})
    assert status == 200 and answer.pop("id").startswith("msg_")
    [request] = client.engine.requests
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "some/model",
        "content": [{"type": "text", "text": "The capital"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": EMPTY_USAGE
        | {
            "cache_read_input_tokens": 3,
            "input_tokens": len(request.prompt) - 3,
            "output_tokens": len(ids),
        },
    }


async def test_stream(serve: Any) -> None:
    client = await serve(FakeEngine(cached_tokens=3))
    ids = script(client, 'The "👍"</s>')
    _, text = await client.stream(PATH, {**HI, "stream": True})
    start, ping, opened, *deltas, closed, change, stop = events_of(text)
    tokens = len(client.engine.requests[0].prompt)
    message = start["message"]
    assert start["type"] == "message_start" and ping == {"type": "ping"}
    assert message["content"] == [] and message["stop_reason"] is None
    assert message["usage"] == EMPTY_USAGE | {"input_tokens": tokens, "output_tokens": 0}
    assert opened == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    assert all(delta["type"] == "content_block_delta" for delta in deltas)
    assert {delta["delta"]["type"] for delta in deltas} == {"text_delta"}
    assert "".join(delta["delta"]["text"] for delta in deltas) == 'The "👍"'
    assert closed == {"type": "content_block_stop", "index": 0}
    assert change["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert change["usage"] == EMPTY_USAGE | {
        "cache_read_input_tokens": 3,
        "input_tokens": tokens - 3,
        "output_tokens": len(ids),
    }
    assert stop == {"type": "message_stop"}


@pytest.mark.parametrize(
    ("fields", "said", "reason", "found"),
    [
        ({"stop_sequences": ["zz", "capital"]}, "The ", "stop_sequence", "capital"),
        ({"max_tokens": 2}, "The capital", "max_tokens", None),
        ({}, "The capital of", "end_turn", None),
    ],
)
async def test_ends(serve: Any, fields: Any, said: str, reason: str, found: str | None) -> None:
    client = await serve()
    script(client, "The capital of</s>")
    _, answer = await client.post(PATH, HI | fields)
    assert answer["content"][0]["text"] == said
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, found)
    _, streamed = await client.stream(PATH, HI | fields | {"stream": True})
    [change] = [event for event in events_of(streamed) if event["type"] == "message_delta"]
    assert change["delta"] == {"stop_reason": reason, "stop_sequence": found}


async def test_conversations(serve: Any) -> None:
    client = await serve()
    system = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"},
                                          {"type": "text", "text": "a"}]},
        {"role": "user", "content": "b"},
    ]  # fmt: skip
    fields = {"system": system, "messages": messages, "temperature": 0.5, "top_k": 3}
    assert (await client.post(PATH, HI | fields))[0] == 200
    said = [("system", "s"), ("user", "h\ni"), ("assistant", "a"), ("user", "b")]
    chat = {"messages": [{"role": role, "content": text} for role, text in said]}
    await client.post("/v1/chat/completions", chat)
    first, second = client.engine.requests
    assert [*first.prompt] == [*second.prompt]
    assert (first.sampling.temperature, first.sampling.top_k) == (0.5, 3)
    _, count = await client.post(f"{PATH}/count_tokens", {"system": "s", "messages": messages})
    assert count == {"input_tokens": len(first.prompt)}
    prefilled = {"messages": [*HI["messages"], {"role": "assistant", "content": "The"}]}
    await client.post(PATH, HI | prefilled)
    await client.post("/v1/chat/completions", prefilled)
    assert [*client.engine.requests[2].prompt] == [*client.engine.requests[3].prompt]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_tokens": None}, "missing field `max_tokens`"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "`messages.0.role`"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "reads text alone"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "runs no tools of"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "`tools[0].name` must be"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "must name a tool"),
        ({"mcp_servers": [{"url": "x"}]}, "`mcp_servers` is not supported"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": 5}}},
            "`output_config.format.schema` must be a JSON schema",
        ),
        ({"output_format": {"type": "json_schema"}}, "missing field `output_format.schema`"),
        ({"max_tokens": 90}, "`messages` tokens + `max_tokens` must be <= 96"),
    ],
)
async def test_refusals(serve: Any, fields: dict[str, Any], sentence: str) -> None:
    client = await serve()
    for stream in (False, True):
        status, answer = await client.post(PATH, HI | fields | {"stream": stream})
        assert status == 422 and answer["type"] == "error"
        assert answer["error"]["type"] == "invalid_request_error"
        assert sentence in answer["error"]["message"], answer
    assert not client.engine.jobs


async def test_errors_have_its_shape(serve: Any) -> None:
    client = await serve(FakeEngine(fail_after=2), api_key=("secret",), max_concurrent_requests=1)
    status, answer = await client.post(PATH, HI)
    assert status == 401 and answer["error"]["type"] == "authentication_error"
    key = {"x-api-key": "secret"}
    async with client.session.post(client.url + PATH, json=HI | {"stream": True}, headers=key) as r:
        last = events_of((await r.read()).decode())[-1]
    assert last["type"] == "error" and last["error"]["type"] == "api_error"
    client.engine.hold = True
    held = asyncio.create_task(client.post(PATH, HI, headers=key))
    while client.engine.live < 1:
        await asyncio.sleep(0.01)
    status, answer = await client.post(PATH, HI, headers=key)
    assert status == 429 and answer["error"]["type"] == "rate_limit_error"
    client.engine.fail_after = None
    client.engine.release()
    assert (await held)[0] == 200
    client.drain()
    status, answer = await client.post(PATH, HI, headers=key)
    assert status == 503 and answer["error"]["type"] == "overloaded_error"
    for wrong in ({"x-api-key": ""}, {"x-api-key": "secretx"}, {"Authorization": "Basic secret"}):
        assert (await client.post(PATH, HI, headers=wrong))[0] == 401
