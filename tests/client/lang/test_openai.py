"""The backend by OpenAI's package, on this server's /v1."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from tests.clients.programs import lang_programs

import penstock.lang as sgl

from .test_tools import WEATHER


@pytest.fixture
def openai(runtime: sgl.Runtime) -> sgl.OpenAI:
    backend = sgl.OpenAI(runtime.url + "/v1")
    sgl.set_default_backend(backend)
    return backend


def test_the_model_is_the_servers(openai: sgl.OpenAI) -> None:
    assert openai.model == "penstock-demo"


@pytest.mark.parametrize(
    "name",
    ["few_shot_qa", "mt_bench", "select", "expert_answer", "stream", "best_of_n", "regex",
     "parallel_decoding", "hellaswag_select", "dtype_gen"],
)  # fmt: skip
def test_programs_as_by_the_endpoint(
    openai: sgl.OpenAI, endpoint: sgl.RuntimeEndpoint, name: str
) -> None:
    program = lang_programs.PROGRAMS[name]
    theirs = program(sgl)
    sgl.set_default_backend(openai)
    assert program(sgl) == theirs


def test_schemas_samples_and_log_probabilities(openai: sgl.OpenAI) -> None:
    @sgl.function
    def program(s: Any, turns: bool) -> None:
        if turns:
            s += sgl.user("A number")
            s += sgl.assistant_begin()
        s += "As JSON: " + sgl.gen(
            "x",
            json_schema={"type": "integer", "minimum": 10, "maximum": 99},
            n=2,
            return_logprob=True,
            top_logprobs_num=2,
            top_k=5,
            min_tokens=1,
        )

    for turns in (False, True):
        state = program.run(turns=turns)
        assert all(10 <= json.loads(text) <= 99 for text in state["x"])
        assert state.get_meta_info("x")[1]["logprobs"]


def test_tools(openai: sgl.OpenAI) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("The weather?")
        s += sgl.assistant(sgl.gen("x", tools=[WEATHER], tool_choice="required", seed=1))

    state = program.run()
    [call] = state.get_meta_info("x")["tool_calls"]
    assert "city" in json.loads(call["function"]["arguments"])
    assert state.messages()[1]["tool_calls"] == [call]


def test_what_the_api_has_not(openai: sgl.OpenAI) -> None:
    @sgl.function
    def program(s: Any, part: Any) -> None:
        s += sgl.user("x")
        s += sgl.assistant(part)

    with pytest.raises(sgl.Unsupported, match="choices cannot be scored in turns"):
        program.run(sgl.select("x", ["a", "b"]))
    with pytest.raises(sgl.Unsupported, match="no `stop_regex`"):
        program.run(sgl.gen("x", stop_regex="a"))
    with pytest.raises(sgl.Unsupported, match="OpenAI cannot flush"):
        sgl.flush_cache()
    with pytest.raises(sgl.BackendError, match="regex") as caught:
        program.run(sgl.gen("x", regex="(("))
    assert caught.value.status == 422


def test_a_model_of_openais_own_gets_text_as_a_turn() -> None:
    backend = sgl.OpenAI("gpt-4o", api_key="-")
    assert backend._chats(_prompt("a"))
    assert not sgl.OpenAI("gpt-3.5-turbo-instruct", api_key="-")._chats(_prompt("a"))


def _prompt(text: str) -> Any:
    from penstock.lang.prompt import Piece, Prompt

    return Prompt().written(Piece(text))


@pytest.mark.parametrize(
    ("name", "package"), [("OpenAI", "openai"), ("Anthropic", "anthropic"), ("LiteLLM", "litellm")]
)
def test_a_package_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'penstock\[{package}\]'"):
        getattr(sgl, name)("a/model")
