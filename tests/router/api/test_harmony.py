"""gpt-oss's format through the routes: channels of answers, and conversations that go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_router.text import TextModel, eos_token_ids
from support.fake_engine import EOS, FakeEngine, limits
from support.harmony import write_harmony

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ANSWER = (
    "<|channel|>analysis<|message|>They ask about Paris.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is sunny."
)
CALL = (
    "<|channel|>analysis<|message|>I need the weather.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.get_weather "
    '<|constrain|>json<|message|>{"city": "Paris"}<|call|>'
)
CALL_OF_A_ROLE = (
    "<|channel|>analysis<|message|>I need the weather.<|end|>"
    '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": '
    '"Paris"}<|call|>'
)
ASK = [{"role": "user", "content": "The weather in Paris?"}]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    return TextModel.load(write_harmony(tmp_path_factory.mktemp("harmony")), None, 1)


def saying(text: TextModel, answer: str) -> FakeEngine:
    ids = text.tokenizer.encode(answer, add_special_tokens=False)
    room = limits(max_input_tokens=2000, max_total_tokens=4000, max_batch_prefill_tokens=2000,
                  max_batch_total_tokens=8000, max_position_embeddings=4000)  # fmt: skip
    return FakeEngine(room, script=[*ids, EOS])


def prompt(client: Any, text: TextModel) -> str:
    """What the engine was last asked for."""
    ids = [*client.engine.requests[-1].prompt]
    return str(text.tokenizer.decode(ids, skip_special_tokens=False))


async def chat(client: Any, **extra: Any) -> Any:
    status, body = await client.post("/v1/chat/completions", {"messages": ASK, **extra})
    assert status == 200, body
    return body["choices"][0]


async def streamed(client: Any, **extra: Any) -> dict[str, Any]:
    """The deltas of a stream, put together."""
    body = {"messages": ASK, "stream": True, **extra}
    status, events = await client.stream("/v1/chat/completions", body)
    assert status == 200, events
    found: dict[str, Any] = {"content": "", "reasoning_content": "", "name": "", "arguments": ""}
    for line in events.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            delta = choice["delta"]
            for field in ("content", "reasoning_content"):
                found[field] += delta.get(field) or ""
            for call in delta.get("tool_calls") or []:
                found["name"] += call["function"].get("name") or ""
                found["arguments"] += call["function"]["arguments"]
            found["finish_reason"] = choice["finish_reason"]
    return found


async def test_channels_of_an_answer(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, ANSWER))
    message = (await chat(client))["message"]
    assert message["reasoning_content"] == "They ask about Paris."
    assert message["content"] == "It is sunny."
    assert "tool_calls" not in message
    found = await streamed(client)
    assert found["reasoning_content"] == "They ask about Paris."
    assert (found["content"], found["finish_reason"]) == ("It is sunny.", "stop")


@pytest.mark.parametrize(("answer", "said"), [(CALL, "Let me look."), (CALL_OF_A_ROLE, "")])
async def test_calls(serve: Any, text: TextModel, answer: str, said: str) -> None:
    """The name stands in the channel, or behind the role."""
    client = await serve(saying(text, answer))
    choice = await chat(client, tools=[WEATHER])
    message, [call] = choice["message"], choice["message"]["tool_calls"]
    assert message["reasoning_content"] == "I need the weather."
    assert (message["content"] or "") == said and choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    found = await streamed(client, tools=[WEATHER])
    assert (found["content"], found["name"]) == (said, "get_weather")
    assert found["reasoning_content"] == "I need the weather."
    assert json.loads(found["arguments"]) == {"city": "Paris"}
    assert found["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("answer", [ANSWER.partition("<|end|>")[0], ANSWER[:-12], "<|channel|>ana"])
async def test_answers_that_are_cut(serve: Any, text: TextModel, answer: str) -> None:
    """Wherever the tokens ran out: no marker is shown."""
    client = await serve(saying(text, answer))
    message = (await chat(client))["message"]
    shown = f"{message['content']}{message.get('reasoning_content')}"
    assert "<|" not in shown and "assistant" not in shown


async def test_responses(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    tool = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
    body = {"input": "The weather in Paris?", "tools": [tool], "reasoning": {"effort": "high"}}
    status, answer = await client.post("/v1/responses", body)
    assert status == 200, answer
    kinds = [item["type"] for item in answer["output"]]
    assert kinds == ["reasoning", "message", "function_call"]
    thought, message, call = answer["output"]
    assert "I need the weather." in json.dumps(thought)
    assert message["content"][0]["text"] == "Let me look."
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    assert "Reasoning: high" in prompt(client, text)
    went = [{"role": "user", "content": "The weather in Paris?"}, *answer["output"]]
    went.append({"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"})
    status, answer = await client.post("/v1/responses", body | {"input": went})
    assert status == 200, answer
    assert '<|message|>{"city": "Paris"}<|call|>' in prompt(client, text)
    assert "<|start|>functions.get_weather to=assistant" in prompt(client, text)


async def test_anthropics_messages(serve: Any, text: TextModel) -> None:
    client = await serve(saying(text, CALL))
    tool = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}  # type: ignore[index]
    body = {"model": "m", "max_tokens": 500, "messages": ASK, "tools": [tool]}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    status, answer = await client.post("/v1/messages", body | {"thinking": thinking})
    assert status == 200, answer
    kinds = {block["type"]: block for block in answer["content"]}
    assert kinds["thinking"]["thinking"] == "I need the weather."
    assert kinds["text"]["text"] == "Let me look."
    assert kinds["tool_use"]["input"] == {"city": "Paris"} and answer["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": kinds["tool_use"]["id"], "content": "sunny"}
    turns = [
        *ASK,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [result]},
    ]
    status, answer = await client.post("/v1/messages", body | {"messages": turns})
    assert status == 200, answer
    thought = "<|channel|>analysis<|message|>I need the weather.\n\nLet me look.<|end|>"
    assert thought + "<|start|>assistant to=functions.get_weather" in prompt(client, text)
    assert 'to=assistant<|channel|>commentary<|message|>"sunny"<|end|>' in prompt(client, text)


@pytest.mark.parametrize("effort", ["low", "high"])
async def test_effort(serve: Any, text: TextModel, effort: str) -> None:
    client = await serve(saying(text, ANSWER))
    await chat(client)
    assert "Reasoning: medium" in prompt(client, text)
    await chat(client, reasoning_effort=effort)
    assert f"Reasoning: {effort}" in prompt(client, text)


async def test_several_calls_of_a_turn(serve: Any, text: TextModel) -> None:
    """The template shows one a message, and takes a result for that of the last call."""
    client = await serve(saying(text, ANSWER))
    calls = [
        {"id": f"c{i}", "type": "function",
         "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
        for i, city in enumerate(("Paris", "Rome"))
    ]  # fmt: skip
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Speak French."},
        *ASK,
        {"role": "assistant", "content": "", "reasoning_content": "Both.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c0", "content": "sun"},
        {"role": "assistant", "content": "Sun and rain.", "reasoning_content": "Done."},
        {"role": "user", "content": "Thanks."},
    ]
    await chat(client, messages=turns, tools=[WEATHER])
    written = prompt(client, text)
    assert "<|start|>developer<|message|>Be brief.\n\nSpeak French.<|end|>" in written
    places = [written.index(part) for part in ("Both.", '"Paris"', '"sun"', '"Rome"', '"rain"')]
    assert places == sorted(places)
    assert written.count("Both.") == 1 and "Done." not in written
    assert written.endswith(
        "<|start|>assistant<|channel|>final<|message|>Sun and rain.<|end|>"
        "<|start|>user<|message|>Thanks.<|end|><|start|>assistant"
    )


SHAPE = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({"tools": [WEATHER], "tool_choice": "required"}, "commentary to=functions.get_weather"),
        ({"tools": [WEATHER]}, "commentary to=functions.get_weather"),
        ({"response_format": SHAPE}, '"final"'),
        ({}, None),
    ],
)
async def test_grammars_hold_channels(
    serve: Any, text: TextModel, fields: dict[str, Any], held: str | None
) -> None:
    client = await serve(saying(text, ANSWER))
    await chat(client, **fields)
    grammar = client.engine.requests[-1].grammar
    assert (grammar is None) == (held is None)
    if grammar is not None and held is not None:
        assert held in grammar.text and '"analysis"' in grammar.text


async def test_a_message_that_goes_on_is_held_itself(serve: Any, text: TextModel) -> None:
    """Its header stands in the prompt."""
    client = await serve(saying(text, "42"))
    turns = [*ASK, {"role": "assistant", "content": "It is 4"}]
    choice = await chat(client, messages=turns, response_format=SHAPE)
    assert prompt(client, text).endswith("<|channel|>final<|message|>It is 4")
    assert choice["message"]["content"] == "42"
    grammar = client.engine.requests[-1].grammar
    assert grammar is not None and "analysis" not in grammar.text


def test_a_call_ends_a_turn(tmp_path: Path) -> None:
    folder = write_harmony(tmp_path / "model")
    text = TextModel.load(folder, None, 1)
    ends = text.tokenizer.encode("<|return|><|call|>", add_special_tokens=False)
    assert eos_token_ids(folder) >= set(ends)
    (middle,) = text.tokenizer.encode("<|end|>", add_special_tokens=False)
    assert middle not in eos_token_ids(folder)
