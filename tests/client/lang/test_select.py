"""Choices are scored by their own tokens, exactly, in one request behind a shared prompt."""

from __future__ import annotations

import math
from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang.backends.http import Connections
from penstock.lang.choices import METHODS, Scores, method_of


def scored(prompt: str, choices: list[str], method: Any = None) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += prompt
        s += sgl.select("choice", choices, choices_method=method)

    return program.run()


def sums(endpoint: sgl.RuntimeEndpoint, text: str, shared: int) -> float:
    """Of the log-probabilities of a text's tokens from a place on, by another protocol."""
    body = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = endpoint._server.ask("/v1/completions", body)
    return math.fsum(answer["choices"][0]["logprobs"]["token_logprobs"][shared:])


def tokens(endpoint: sgl.RuntimeEndpoint, text: str) -> list[int]:
    ids: list[int] = endpoint._server.ask("/tokenize", {"prompt": text})["tokens"]
    return ids


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("The capital of France is", [" Paris", " Berlin", " London town"]),
        ("I need to use a ", ["calculator", "search engine"]),  # joined with the prompt's blank
        ("The", ["re", " cat", "y are here"]),  # with its only word
    ],
)
def test_a_score_is_that_of_the_choices_own_tokens(
    endpoint: sgl.RuntimeEndpoint, prompt: str, choices: list[str]
) -> None:
    meta = scored(prompt, choices).get_meta_info("choice")
    rows = [tokens(endpoint, prompt + choice) for choice in choices]
    columns = zip(tokens(endpoint, prompt), *rows, strict=False)
    shared = next(i for i, column in enumerate([*columns, (0, 1)]) if len(set(column)) > 1)
    for place, choice in enumerate(choices):
        assert [e[1] for e in meta["input_token_logprobs"][place]] == rows[place][shared:]
        expected = sums(endpoint, prompt + choice, shared)
        assert meta["prompt_logprob"][place] == pytest.approx(expected, abs=1e-3)


def test_all_choices_are_one_request(
    endpoint: sgl.RuntimeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    ask = Connections.ask

    def note(self: Connections, path: str, body: Any = None, method: str = "POST") -> Any:
        asked.append(body)
        return ask(self, path, body, method)

    monkeypatch.setattr(Connections, "ask", note)
    sgl.flush_cache()
    asked.clear()
    prompt = "A long beginning. " * 20
    state = scored(prompt, [f"choice {i}" for i in range(40)])
    assert len(asked) == 2 and len(asked[1]["text"]) == 40
    cached = state.execution.backend._server.ask("/generate", {**asked[1], "stream": False})
    assert all(answer["meta_info"]["cached_tokens"] > 64 for answer in cached)


def test_behind_nothing(endpoint: sgl.RuntimeEndpoint) -> None:
    for method in METHODS:
        assert scored("", ["The", "Zebra"], method)["choice"] in ("The", "Zebra")


def test_within_a_turn(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any, method: str) -> None:
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant(sgl.select("city", ["Paris", "Berlin"], choices_method=method) + ".")

    for method in METHODS:
        state = program.run(method=method)
        assert state["city"] == "Paris" and state.messages()[-1]["content"] == "Paris."


def entries(*values: float, first: int = 0) -> list[list[Any]]:
    return [[value, first + place, ""] for place, value in enumerate(values)]


OWN = [entries(-1.0, -1.0), entries(-0.5, -3.0, -0.1, first=10), entries(-1.9, first=20)]
ALONE = [entries(-1.0, -1.0), entries(-2.5, -5.0, -4.1, first=10), entries(-0.1, first=20)]


@pytest.mark.parametrize(
    ("method", "index"),
    [
        ("token_length_normalized", 0),  # means -1, -1.2, -1.9
        ("total_logprob", 2),  # totals -2, -3.6, -1.9
        ("greedy", 1),  # the likeliest first token
        ("unconditional", 1),  # the prompt helps most
    ],
)
def test_methods(method: str, index: int) -> None:
    choice, meta = method_of(method)(["a", "b", "c"], Scores(OWN, ALONE))
    assert choice == "abc"[index]
    assert meta["prompt_logprob"] == pytest.approx([-2.0, -3.6, -1.9])


def test_greedy_goes_on_where_tokens_are_the_same() -> None:
    rows = [[[-0.1, 5, ""], [-3.0, 6, ""]], [[-0.1000001, 5, ""], [-0.2, 7, ""]]]
    assert method_of("greedy")(["a", "b"], Scores(rows))[0] == "b"


def test_unconditional_without_a_first_value() -> None:
    alone = [[[None, 5, ""], [-1.0, 6, ""]], [[None, 5, ""]]]
    own = [entries(-1.0, -0.5, first=5), entries(-0.1, first=5)]
    assert method_of("unconditional")(["a", "b"], Scores(own, alone))[0] == "a"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"choices": []}, "`choices` must be a list"),
        ({"choices": "abc"}, "`choices` must be a list"),
        ({"choices": ["a", ""]}, "must not hold an empty string"),
        ({"choices": ["a"], "temperature": 0.5}, "`temperature` must be 0"),
        ({"choices": ["a"], "choices_method": "best"}, "`choices_method` must be one of"),
    ],
)
def test_what_select_refuses(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sgl.select("x", **arguments)


def test_many_choices_are_several_requests(
    endpoint: sgl.RuntimeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.lang.backends.scoring.LARGEST", 100)
    whole = scored("The capital of France is", [" Paris", " Rome", " Oslo", " Bern"])
    assert whole["choice"] == " Paris"
    assert len(whole.get_meta_info("choice")["prompt_logprob"]) == 4
