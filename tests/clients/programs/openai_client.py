"""OpenAI's own client, and what programs written for OpenAI send with it."""

from __future__ import annotations

import json
from typing import Literal

import openai
import pydantic
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
MODEL = "gpt-4o"
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALLING = {"max_tokens": 80, "temperature": 0}


def chats() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=20, temperature=0
    )
    assert "Paris" in answer.choices[0].message.content, answer


def chats_in_a_stream() -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text and chunks[-1].usage.completion_tokens > 0


def accumulates_a_stream() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, max_tokens=20, temperature=0
    ) as stream:
        answer = stream.get_final_completion()
    assert "Paris" in answer.choices[0].message.content, answer


def sends_fields_that_ask_for_nothing() -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": QUESTION}]},
        ],
        max_completion_tokens=20,
        reasoning_effort="low",
        verbosity="low",
        store=False,
        service_tier="auto",
        metadata={"a": "b"},
        modalities=["text"],
        response_format={"type": "text"},
        parallel_tool_calls=True,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tool_choice="none",
        prediction={"type": "content", "content": "Paris"},
        user="someone",
    )
    assert answer.choices[0].message.content, answer


def names_what_it_ignored() -> None:
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_tokens=2, extra_body={"brand_new": 1}
    )
    assert "brand_new" in answer.headers["x-ignored-fields"], answer.headers


def asks_for_probabilities() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=2, logprobs=True, top_logprobs=20
    )
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 20


def completes_many_prompts() -> None:
    answer = client.completions.create(
        model=MODEL, prompt=[QUESTION] * 20, max_tokens=20, temperature=0
    )
    assert len(answer.choices) == 20
    assert all("Paris" in choice.text for choice in answer.choices)


def completes_many_choices() -> None:
    answer = client.completions.create(model=MODEL, prompt=QUESTION, max_tokens=5, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def echoes() -> None:
    answer = client.completions.create(
        model=MODEL, prompt=QUESTION, max_tokens=0, echo=True, logprobs=1
    )
    choice = answer.choices[0]
    assert choice.text == QUESTION and choice.logprobs.token_logprobs[0] is None, choice
    assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])


def calls_a_tool() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=WEATHER, tools=[TOOL], tool_choice="required", **CALLING
    )
    [choice] = answer.choices
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and call.function.name == "get_weather", answer
    assert list(json.loads(call.function.arguments)) == ["city"], answer
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    back = [*WEATHER, choice.message, result]
    last = client.chat.completions.create(model=MODEL, messages=back, tools=[TOOL], **CALLING)
    assert last.choices[0].message.content, last


def calls_a_tool_in_a_stream() -> None:
    chunks = client.chat.completions.create(
        model=MODEL, messages=WEATHER, tools=[TOOL], stream=True, **CALLING
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    first, *others = [call for delta in deltas for call in delta.tool_calls or []]
    assert first.id and first.function.name == "get_weather", first
    assert not any(call.id or call.function.name for call in others), others
    pieces = [call.function.arguments for call in (first, *others)]
    assert len(pieces) > 2 and list(json.loads("".join(pieces))) == ["city"], pieces


def parses_a_tool_in_a_stream() -> None:
    """The helper that folds a stream, and holds arguments to the tool's schema."""
    with client.chat.completions.stream(
        model=MODEL, messages=WEATHER, tools=[TOOL], **CALLING
    ) as stream:
        [call] = stream.get_final_completion().choices[0].message.tool_calls
    assert list(call.function.parsed_arguments) == ["city"], call


def parses_an_answer() -> None:
    class Place(pydantic.BaseModel):
        city: Literal["Paris", "Rome"]

    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Place, max_tokens=40, temperature=0
    )
    assert answer.choices[0].message.parsed.city in ("Paris", "Rome"), answer


def says_where_a_number_is_none() -> None:
    error = raised(
        lambda: client.chat.completions.create(
            model=MODEL, messages=MESSAGES, extra_body={"min_p": "x", "logit_bias": {"5": "NaN"}}
        )
    )
    assert isinstance(error, openai.UnprocessableEntityError), repr(error)
    says(error, "logit_bias")


def reads_a_refusal() -> None:
    error = raised(
        lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1)
    )
    assert isinstance(error, openai.UnprocessableEntityError), repr(error)
    says(error, "temperature")
    assert "temperature" in error.body["message"], error.body


def knows_that_a_prompt_is_too_long() -> None:
    long = [{"role": "user", "content": "word " * 5000}]
    error = raised(lambda: client.chat.completions.create(model=MODEL, messages=long))
    assert error.code == "context_length_exceeded", (error.code, error)
    says(error, "maximum context length")
    says(error, "messages")


def lists_models() -> None:
    assert len(client.models.list().data) == 1


verdict(
    "openai",
    chats,
    chats_in_a_stream,
    accumulates_a_stream,
    sends_fields_that_ask_for_nothing,
    names_what_it_ignored,
    asks_for_probabilities,
    completes_many_prompts,
    completes_many_choices,
    echoes,
    calls_a_tool,
    calls_a_tool_in_a_stream,
    parses_a_tool_in_a_stream,
    parses_an_answer,
    says_where_a_number_is_none,
    reads_a_refusal,
    knows_that_a_prompt_is_too_long,
    lists_models,
)
