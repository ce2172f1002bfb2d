"""OpenAI's own client, by its newer API."""

from __future__ import annotations

import json

import openai
from verdict import QUESTION, URL, raised, says, verdict

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
MODEL = "gpt-5"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": SCHEMA,
    "strict": True,
}


def answers() -> None:
    answer = client.responses.create(
        model=MODEL, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=30
    )
    assert answer.status == "completed" and "Paris" in answer.output_text, answer
    items = [{"role": "user", "content": QUESTION}, *answer.output]
    again = [*items, {"role": "user", "content": QUESTION}]
    assert client.responses.create(model=MODEL, input=again, temperature=0).output_text


def answers_in_a_stream() -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    assert "Paris" in final.output_text, final


def answers_in_a_schema() -> None:
    shape = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    answer = client.responses.create(
        model=MODEL, input=QUESTION, text={"format": shape}, temperature=0, max_output_tokens=60
    )
    assert answer.status == "completed", answer
    assert list(json.loads(answer.output_text)) == ["city"], answer


def calls_a_tool() -> None:
    answer = client.responses.create(
        model=MODEL,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_output_tokens=80,
    )
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert list(json.loads(call.arguments)) == ["city"], answer
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    back = [{"role": "user", "content": "What is the weather in Paris?"}, *answer.output, output]
    assert client.responses.create(model=MODEL, input=back, tools=[WEATHER], temperature=0).output


def calls_a_tool_in_a_stream() -> None:
    with client.responses.stream(
        model=MODEL,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_output_tokens=80,
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    [call] = [item for item in final.output if item.type == "function_call"]
    assert len(pieces) > 1 and "".join(pieces) == call.arguments, (pieces, call)
    assert list(call.parsed_arguments) == ["city"], call
    assert [event.sequence_number for event in events] == list(range(len(events)))


def reads_refusals() -> None:
    error = raised(
        lambda: client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    )
    assert isinstance(error, openai.UnprocessableEntityError), repr(error)
    says(error, "keeps no responses")
    assert isinstance(raised(lambda: client.responses.retrieve("resp_1")), openai.NotFoundError)
    wanted = raised(lambda: client.embeddings.create(model=MODEL, input="x"))
    says(wanted, "turns no text into vectors")


verdict(
    "openai",
    answers,
    answers_in_a_stream,
    answers_in_a_schema,
    calls_a_tool,
    calls_a_tool_in_a_stream,
    reads_refusals,
)
