"""`penstock.lang` by LiteLLM, on /v1/chat/completions."""

from __future__ import annotations

import json

from lang_backends import WEATHER, answered, called, chats, refuses, streams
from verdict import URL, raised, says, verdict

import penstock.lang as sgl

sgl.set_default_backend(
    sgl.LiteLLM("openai/penstock-demo", api_base=URL + "/v1", api_key="-", num_retries=0)
)


def several() -> None:
    state = answered.run(question="What is the capital of France?", n=2, temperature=0)
    assert len(state["answer"]) == 2 == len(state.get_meta_info("answer"))


def is_held_to_a_schema() -> None:
    schema = {"type": "integer", "minimum": 10, "maximum": 99}
    assert 10 <= json.loads(answered.run(question="A number", json_schema=schema)["answer"]) <= 99


def calls_a_tool() -> None:
    state = called.run(tools=[WEATHER], tool_choice="required", seed=1)
    [call, *_] = state.get_meta_info("answer")["tool_calls"]
    assert "city" in json.loads(call["function"]["arguments"]), call


def shows_an_error() -> None:
    error = raised(lambda: answered.run(question="word " * 5000))
    assert isinstance(error, sgl.BackendError), type(error)
    says(error, "must have less than")


verdict(
    "litellm", chats, streams, several, is_held_to_a_schema, calls_a_tool, refuses, shows_an_error
)
