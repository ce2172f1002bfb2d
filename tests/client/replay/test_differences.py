"""What counts as a difference, and what is chance."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.replay.answers import Answer
from penstock.replay.differences import differences
from penstock.replay.greedy import is_greedy
from penstock.replay.requests import Request
from penstock.replay.streams import joined


def compared(first: Any, second: Any, values: bool = True) -> list[tuple[str, str, str]]:
    answers = (Answer(200, {}, body) for body in (first, second))
    found = differences(*answers, values=values)
    return [(one.what, one.first, one.second) for one in found]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"id": "a", "total_time": 2}, {"id": "b", "total_time": 4}, []),
        ({"a": None, "b": 1}, {"b": 1}, []),
        ({"a": 1}, {"a": "1"}, [("a", "number", "text")]),
        ({"a": {"b": 1, "c": {"d": 1}}}, {"a": {"b": 1}}, [("a.c", "object", "absent")]),
        ({"a": [{"b": 1}]}, {"a": [{}]}, [("a[].b", "number", "absent")]),
        ({"text": "The capital of France"}, {"text": "The capital of Spain"},
         [("text", "… capital of France", "… capital of Spain")]),
        ({"a": [1, 2]}, {"a": [1]}, [("number of a[]", "2", "1")]),
        ({"logprob": -0.5}, {"logprob": -0.52}, []),
        ({"logprob": -0.5}, {"logprob": -0.8}, [("logprob", "-0.5", "-0.8")]),
        ({"logprob": -1}, {"logprob": -1.2}, [("logprob", "-1", "-1.2")]),
        ("# TYPE a counter\na 1\n", "# TYPE a counter\na 2\n# TYPE b gauge\nb 1\n",
         [("metrics.b", "absent", "text")]),
        ("OK", "", [("body", "OK", "")]),
        ({"a": {}}, {"a": []}, [("a", "object", "list")]),
    ],
)  # fmt: skip
def test_bodies(first: Any, second: Any, expected: list[tuple[str, str, str]]) -> None:
    assert compared(first, second) == expected
    assert compared(first, first) == [] and compared(second, second) == []


def test_values_of_what_is_drawn_are_chance() -> None:
    assert compared({"text": "a"}, {"text": "b"}, values=False) == []
    assert compared({"text": "a"}, {"text": 1}, values=False) == [("text", "text", "number")]


def test_status_and_headers() -> None:
    first = Answer(
        200, {"content-type": "application/json; charset=utf-8", "date": "1", "x-a": "1"}
    )
    second = Answer(200, {"content-type": "application/json", "date": "2", "x-a": "2"})
    assert list(differences(first, second, values=True)) == []
    third = Answer(200, {"content-type": "text/plain"})
    found = [one.what for one in differences(first, third, values=True)]
    assert found == ["header content-type", "header x-a"]
    refusal = Answer(422, {}, {"error": {"message": "too\nlong"}})
    [status] = differences(first, refusal, values=True)
    assert (status.what, status.first, status.second) == ("status", "200", "422: too long")


def test_a_stream_and_a_whole_answer() -> None:
    stream = Answer(200, {}, events=({"a": 1}, "[DONE]"))
    [found] = differences(stream, Answer(200, {}, {"a": 1}), values=True)
    assert (found.what, found.first, found.second) == ("answer", "a stream", "whole")


def chunk(text: str | None, end: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": end}], **fields}


def test_streams_are_joined_however_they_were_cut() -> None:
    one = joined([chunk("The cap"), chunk("ital"), chunk(None, "stop"), chunk("", usage={"n": 1})])
    other = joined(
        [chunk(""), chunk("The"), chunk(" capital", "stop"), chunk(None, usage={"n": 2})]
    )
    assert one["text"] == "The capital" and one["ends"] == ["stop"] and one == other
    assert joined([chunk("a"), "[DONE]"])["last event is [DONE]"] is True


def test_streams_of_other_protocols() -> None:
    tgi = [
        {"token": {"text": "a", "special": False}},
        {"token": {"text": "</s>", "special": True}, "details": {"finish_reason": "eos_token"}},
    ]
    assert (joined(tgi)["text"], joined(tgi)["ends"]) == ("a", ["eos_token"])
    anthropic = [{"delta": {"text": "a"}}, {"delta": {"stop_reason": "end_turn"}}]
    assert (joined(anthropic)["text"], joined(anthropic)["ends"]) == ("a", ["end_turn"])
    assert joined([{"choices": [{"text": "a"}]}, {"delta": "b"}])["text"] == "ab"
    for strange in ([1], ["x"], [{"choices": 3}], [{"choices": [3]}], [{"delta": 3}]):
        assert joined(strange)["text"] == ""


@pytest.mark.parametrize(
    ("path", "body", "greedy"),
    [
        ("/v1/chat/completions", {"temperature": 0}, True),
        ("/v1/chat/completions", {}, False),
        ("/generate", {"inputs": "a"}, True),
        ("/generate", {"inputs": "a", "parameters": {"do_sample": True}}, False),
        ("/generate", {"inputs": "a", "parameters": {"temperature": 0.5}}, False),
        ("/generate", {"text": "a", "sampling_params": {"temperature": 0}}, True),
        ("/generate", {"text": "a"}, False),
        ("/tokenize", {"inputs": "a"}, True),
        ("/info", None, True),
    ],
)
def test_greedy(path: str, body: dict[str, Any] | None, greedy: bool) -> None:
    assert is_greedy(Request("", "POST", path, body)) is greedy
