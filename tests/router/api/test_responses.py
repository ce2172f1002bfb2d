"""/v1/responses, by raw requests and by OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from penstock_router.api.body_shape import MOST_LEVELS
from support.fake_engine import FakeEngine

PATH = "/v1/responses"


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
    body = {"input": "hi", "instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.5}
    status, answer = await client.post(PATH, body)
    assert status == 200
    Response.model_validate(answer, strict=True)
    assert answer["id"].startswith("resp_") and answer["object"] == "response"
    [item] = answer["output"]
    assert item["id"].startswith("msg_") and item["role"] == "assistant"
    part = {"type": "output_text", "text": "The capital", "annotations": [], "logprobs": []}
    assert item["content"] == [part] and item["status"] == answer["status"] == "completed"
    [request] = client.engine.requests
    assert answer["usage"] == {
        "input_tokens": len(request.prompt),
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": len(ids),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len(request.prompt) + len(ids),
    }
    assert answer["store"] is False and answer["metadata"] == {"a": "b"}
    assert answer["temperature"] == request.sampling.temperature == 0.5
    chat = {"messages": [{"role": "system", "content": "Be brief."}]}
    chat["messages"].append({"role": "user", "content": "hi"})
    await client.post("/v1/chat/completions", chat)
    assert [*client.engine.requests[1].prompt] == [*request.prompt]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_shown_again_is_not_too_deep(serve: Any, stream: bool) -> None:
    """It was read and could not be written: as a stream that ended the server."""
    client = await serve()
    for levels, status in ((MOST_LEVELS - 2, 200), (260, 422)):
        script(client, "The capital</s>")
        deep: Any = 1
        for _ in range(levels):
            deep = [deep]
        body = {"input": "hi", "metadata": {"a": deep}, "stream": stream}
        async with client.session.post(client.url + PATH, json=body) as response:
            assert response.status == status
            text = await response.text()
        assert ("[" * levels in text) == (status == 200)


async def test_a_cut_answer_is_incomplete(serve: Any) -> None:
    client = await serve()
    script(client, "The capital of France")
    status, answer = await client.post(PATH, {"input": "hi", "max_output_tokens": 2})
    assert status == 200 and answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


async def test_stream(serve: Any) -> None:
    client = await serve()
    script(client, 'The "👍"</s>')
    _, text = await client.stream(PATH, {"input": "hi", "stream": True})
    events = events_of(text)
    adapter = TypeAdapter(ResponseStreamEvent)
    for event in events:
        adapter.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(deltas),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(deltas) == 'The "👍"' == events[-4]["text"]
    assert events[-1]["response"]["output"][0] == events[-2]["item"]
    assert events[0]["response"]["id"] == events[-1]["response"]["id"]


async def test_nothing_said(serve: Any) -> None:
    client = await serve()
    script(client, "</s>")
    _, answer = await client.post(PATH, {"input": "hi"})
    assert answer["output"][0]["content"][0]["text"] == ""
    _, text = await client.stream(PATH, {"input": "hi", "stream": True})
    events = events_of(text)
    assert events[-1]["response"]["output"][0]["content"] == answer["output"][0]["content"]


async def test_conversations(serve: Any) -> None:
    """Items become messages as chat has them."""
    client = await serve()
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "h"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": None},
        {"type": "message", "id": "m", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        {"role": "user", "content": "i"},
    ]  # fmt: skip
    assert (await client.post(PATH, {"input": items}))[0] == 200
    messages = [("user", "h"), ("assistant", "a"), ("user", "i")]
    chat = {"messages": [{"role": role, "content": text} for role, text in messages]}
    await client.post("/v1/chat/completions", chat)
    first, second = client.engine.requests
    assert [*first.prompt] == [*second.prompt]


async def test_log_probabilities(serve: Any) -> None:
    client = await serve()
    script(client, "The capital</s>")
    include = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "seed": 0}
    _, answer = await client.post(PATH, {"input": "hi", **include})
    entries = answer["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in entries] == ["The", " capital"]
    assert len(entries[0]["top_logprobs"]) == 2
    _, text = await client.stream(PATH, {"input": "hi", "stream": True, **include})
    events = events_of(text)
    streamed = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert (
        sum(streamed, [])
        == entries
        == events[-1]["response"]["output"][0]["content"][0]["logprobs"]
    )


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"previous_response_id": "resp_1"}, "this server keeps no responses"),
        ({"conversation": "c"}, "this server keeps no responses"),
        ({"background": True}, "`background` is not supported"),
        ({"input": []}, "`input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "this server keeps no items"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "reads no images"),
        ({"input": [{"role": "user"}]}, "missing field `input[].content`"),
        ({"tools": [{"type": "web_search"}]}, "runs no tools of its own"),
        ({"max_output_tokens": 0}, "`max_output_tokens`"),
        ({"input": "the " * 100}, "`input` must have less than 64 tokens"),
        ({"max_output_tokens": 80}, "`input` tokens + `max_output_tokens` must be <= 96"),
        ({"top_logprobs": 21}, "`top_logprobs`"),
        ({"text": {"format": {"type": "json_schema"}}}, "missing field `text.format.schema`"),
        ({"text": {"format": {"type": "xml"}}}, "`text.format.type` must be"),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"a": {"nullable": True}}}}},
            "`text.format.schema` has the keyword `nullable`",
        ),
    ],
)
async def test_refusals(serve: Any, extra: dict[str, Any], sentence: str) -> None:
    client = await serve()
    for stream in (False, True):
        status, answer = await client.post(PATH, {"input": "hi", "stream": stream, **extra})
        assert status == 422 and sentence in answer["error"]["message"], answer
    assert not client.engine.jobs


@pytest.mark.parametrize("stream", [False, True])
async def test_a_long_conversation_loses_its_beginning(serve: Any, stream: bool) -> None:
    """Whole turns: what is left is a conversation of its own."""
    client = await serve()
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    old = [
        {"role": "user", "content": "the " * 20},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "the " * 20},
        {"role": "assistant", "content": "the " * 5},
    ]
    kept = [
        {"role": "user", "content": "the capital"},
        {"role": "assistant", "content": "of"},
        {"role": "user", "content": "France"},
    ]
    body = {"instructions": "Be brief.", "stream": stream, "max_output_tokens": 8}
    for items in ([*old, *kept], [*old, *old, *kept], kept):
        send = client.stream if stream else client.post
        status, _ = await send(PATH, body | {"input": items, "truncation": "auto"})
        assert status == 200
    first, second, whole = client.engine.requests
    assert [*first.prompt] == [*second.prompt] == [*whole.prompt]
    status, answer = await client.post(PATH, {"input": [*old, *kept]})
    assert status == 422 and answer["error"]["code"] == "context_length_exceeded"
    long = [*kept, {"role": "user", "content": "the " * 100}]
    status, answer = await client.post(PATH, {"input": long, "truncation": "auto"})
    assert status == 422 and answer["error"]["code"] == "context_length_exceeded"


async def test_an_error_within_a_stream(serve: Any) -> None:
    client = await serve(FakeEngine(fail_after=2))
    _, text = await client.stream(PATH, {"input": "hi", "stream": True})
    last = events_of(text)[-1]
    assert last["type"] == "error" and last["code"] == "generation"


async def test_the_client(serve: Any) -> None:
    client = await serve()
    script(client, "The capital</s>")
    async with openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="-") as sdk:
        answer = await sdk.responses.create(model="m", input="hi", store=False)
        assert answer.output_text == "The capital"
        with pytest.raises(openai.UnprocessableEntityError, match="keeps no responses"):
            await sdk.responses.create(model="m", input="x", previous_response_id=answer.id)
        async with sdk.responses.stream(model="m", input="hi") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        assert final.output_text == "The capital"
