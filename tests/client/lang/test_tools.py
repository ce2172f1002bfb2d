"""Tools and reasoning, with turns and without."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import penstock.lang as sgl

WEATHER = {
    "name": "get_weather",
    "description": "Get weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}
FLIGHT = {
    "name": "book_flight",
    "parameters": {
        "type": "object",
        "properties": {"to": {"type": "string", "maxLength": 12}, "seats": {"type": "integer"}},
        "required": ["to"],
    },
}
SCHEMAS = {tool["name"]: tool["parameters"] for tool in (WEATHER, FLIGHT)}


@sgl.function
def agent_workflow(s: Any, user_query: str, tools: list[Any], **how: Any) -> None:
    s += "You are a helpful assistant with access to tools.\n"
    s += f"Available tools: {tools}\n\n"
    s += f"User: {user_query}\nAssistant: "
    s += sgl.gen("response", max_tokens=60, tools=tools, stop=["User:", "\n\n"], **how)
    s += "\nUser: thanks\n"


@sgl.function
def in_turns(s: Any, user_query: str, tools: list[Any], **how: Any) -> None:
    s += sgl.user(user_query)
    s += sgl.assistant(sgl.gen("response", max_tokens=60, tools=tools, **how))
    s += sgl.user("Thanks.")
    s += sgl.assistant(sgl.gen("end", max_tokens=4))


def check(state: Any) -> list[dict[str, Any]]:
    """The calls, which are valid."""
    calls: list[dict[str, Any]] = state.get_meta_info("response")["tool_calls"]
    for call in calls:
        arguments = json.loads(call["function"]["arguments"])
        jsonschema.validate(arguments, SCHEMAS[call["function"]["name"]])
        assert call["id"] and call["type"] == "function"
    return calls


@pytest.mark.parametrize("program", [agent_workflow, in_turns])
def test_required_calls(either: sgl.RuntimeEndpoint, program: sgl.Program) -> None:
    state = program.run(
        "What's the weather in NYC?", [WEATHER, FLIGHT], tool_choice="required", seed=1
    )
    assert check(state) and "arguments" in state["response"]
    assert state["response"] in state.text()


@pytest.mark.parametrize("program", [agent_workflow, in_turns])
def test_a_named_call_and_openais_shape(
    endpoint: sgl.RuntimeEndpoint, program: sgl.Program
) -> None:
    tools = [{"type": "function", "function": tool} for tool in (WEATHER, FLIGHT)]
    choice = {"type": "function", "function": {"name": "book_flight"}}
    calls = check(program.run("Go!", tools, tool_choice=choice, seed=2))
    assert [call["function"]["name"] for call in calls] == ["book_flight"]


def test_the_model_calls_as_it_likes(endpoint: sgl.RuntimeEndpoint) -> None:
    """Without turns the prompt says what there is; `state[name]` is the text in any case."""
    state = agent_workflow.run("Book a flight to LA", [WEATHER, FLIGHT], temperature=0)
    assert isinstance(state["response"], str) and isinstance(check(state), list)


def test_the_conversation_goes_on_from_a_call(endpoint: sgl.RuntimeEndpoint) -> None:
    """The template gets the call as a call."""
    state = in_turns.run("Weather?", [WEATHER], tool_choice="required", seed=3)
    called = state.messages()[1]
    assert called["content"] == "" and called["tool_calls"] == check(state)


def test_a_call_is_streamed_as_text(endpoint: sgl.RuntimeEndpoint) -> None:
    state = in_turns.run("Weather?", [WEATHER], tool_choice="required", seed=3, stream=True)
    assert "".join(state.text_iter("response")) == state["response"]
    assert check(state)


def test_wrong_tools_are_named(endpoint: sgl.RuntimeEndpoint) -> None:
    with pytest.raises(sgl.BackendError, match=r"tools\[0\].function.name"):
        agent_workflow.run("x", [{"name": "no name"}])


def test_reasoning_of_a_model_that_does_not_think(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant(sgl.separate_reasoning(sgl.gen("answer", max_tokens=12)))

    for stream in (False, True):
        state = program.run(temperature=0, stream=stream)
        assert "Paris" in state["answer"] and state["answer_reasoning_content"] == ""
        assert "".join(state.text_iter("answer")) == state["answer"]
