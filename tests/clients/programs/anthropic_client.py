"""Anthropic's own client."""

from __future__ import annotations

import json

import anthropic
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
MODEL = "claude-sonnet-4-5"
COMMON = {"model": MODEL, "max_tokens": 20, "extra_body": {"temperature": 0}}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def answers() -> None:
    answer = client.messages.create(messages=MESSAGES, system="Be brief.", **COMMON)
    assert answer.content[0].type == "text" and "Paris" in answer.content[0].text, answer
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0, answer


def answers_in_a_stream() -> None:
    with client.messages.stream(messages=MESSAGES, **COMMON) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "Paris" in text and final.content[0].text == text, final
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0, final


def reads_events() -> None:
    events = list(client.messages.create(messages=MESSAGES, stream=True, **COMMON))
    assert events[0].type == "message_start" and events[-1].type == "message_stop", events


def stops() -> None:
    answer = client.messages.create(messages=MESSAGES, stop_sequences=["Paris"], **COMMON)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris"), answer
    answer = client.messages.create(messages=MESSAGES, **{**COMMON, "max_tokens": 1})
    assert answer.stop_reason == "max_tokens", answer


def counts() -> None:
    count = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    answer = client.messages.create(messages=MESSAGES, **COMMON)
    usage = answer.usage
    assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def calls_a_tool() -> None:
    choice = {"type": "tool", "name": "get_weather"}
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    wanted = {**COMMON, "max_tokens": 60, "tools": [WEATHER]}
    answer = client.messages.create(messages=question, tool_choice=choice, **wanted)
    [call] = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use" and isinstance(call.input["city"], str), answer
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    back = [
        *question,
        {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
        {"role": "user", "content": [result]},
    ]
    assert client.messages.create(messages=back, **wanted).content


def calls_a_tool_in_a_stream() -> None:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    wanted = {**COMMON, "max_tokens": 60, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    with client.messages.stream(messages=question, **wanted) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    [call] = [block for block in final.content if block.type == "tool_use"]
    assert final.stop_reason == "tool_use" and list(call.input) == ["city"], final
    assert len(pieces) > 1 and json.loads("".join(pieces)) == call.input, (pieces, call)


def reads_refusals() -> None:
    image = [{"type": "image", "source": {"type": "url", "url": "http://x"}}]
    asked = [{"role": "user", "content": image}]
    error = raised(lambda: client.messages.create(messages=asked, **COMMON))
    assert isinstance(error, anthropic.UnprocessableEntityError), repr(error)
    says(error, "reads text alone")
    long = [{"role": "user", "content": QUESTION * 2000}]
    says(raised(lambda: client.messages.create(messages=long, **COMMON)), "must have less than")


verdict(
    "anthropic",
    answers,
    answers_in_a_stream,
    reads_events,
    stops,
    counts,
    calls_a_tool,
    calls_a_tool_in_a_stream,
    reads_refusals,
)
