"""`penstock.lang` by Anthropic's package, on /v1/messages."""

from __future__ import annotations

import json
from typing import Any

from lang_backends import WEATHER, answered, called, chats, refuses, streams
from verdict import URL, raised, says, verdict

import penstock.lang as sgl

sgl.set_default_backend(sgl.Anthropic("penstock-demo", base_url=URL, api_key="-"))


def goes_on_from_the_assistants_text() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant("The capital of France is" + sgl.gen("city", max_tokens=4))

    assert "Paris" in program.run(temperature=0)["city"]


def calls_a_named_tool() -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    state = called.run(tools=[WEATHER], tool_choice=choice)
    [call] = state.get_meta_info("answer")["tool_calls"]
    assert "city" in json.loads(call["function"]["arguments"]), call
    assert state.messages()[-1]["tool_calls"] == [call]


def stops() -> None:
    state = answered.run(question="What is the capital of France?", stop="Paris", temperature=0)
    assert "Paris" not in state["answer"]
    assert state.get_meta_info("answer")["finish_reason"]["matched"] == "Paris"


def shows_an_error() -> None:
    error = raised(lambda: answered.run(question="word " * 5000))
    assert isinstance(error, sgl.BackendError)
    says(error, "must have less than")


verdict(
    "anthropic",
    chats,
    streams,
    goes_on_from_the_assistants_text,
    calls_a_named_tool,
    stops,
    refuses,
    shows_an_error,
)
