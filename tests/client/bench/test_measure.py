"""What is counted of an answer, by protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.bench.measure import measure
from penstock.bench.prompts import Prompt
from penstock.bench.protocols import PROTOCOLS, Asking, protocol_named, request_body
from penstock.bench.stream_client import Exchange


def answer(*events: Any, status: int = 200) -> Exchange:
    """One that began at 0, and whose events came a second apart."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    reads = [(1.0 + i, f"data: {text}\n\n".encode()) for i, text in enumerate(texts)]
    return Exchange(0.0, reads, status)


def choice(text: str, usage: Any = None) -> dict[str, Any]:
    return {"choices": [{"text": text}], "usage": usage}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def test_an_event_is_a_token_where_nobody_counts_along() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    events = [choice("a"), choice("b"), {"choices": [], "usage": usage}, "[DONE]"]
    said = measure(answer(*events), PROTOCOLS["completions"])
    assert (said["tokens"], said["events"], said["first_tokens"]) == (3, 2, 1)
    assert (said["first"], said["last"], said["gaps_us"]) == (1.0, 2.0, [1_000_000])
    assert said["reported"] and said["prompt_tokens"] == 7 and said["failure"] is None


def test_gaps_are_divided_among_the_tokens_of_an_event() -> None:
    events = [choice("ab", {"completion_tokens": 2}), choice("cdef", {"completion_tokens": 6})]
    said = measure(answer(*events), PROTOCOLS["completions"])
    assert (said["tokens"], said["first_tokens"]) == (6, 2)
    assert said["gaps_us"] == [250_000] * 4


def test_who_speaks_is_no_token() -> None:
    events = [delta(role="assistant", content=""), delta(reasoning="hm"), delta(content="a")]
    said = measure(answer(*events, delta(), "[DONE]"), PROTOCOLS["chat"])
    assert (said["first"], said["last"], said["tokens"], said["reported"]) == (2.0, 3.0, 2, False)


def test_tgi_and_sglang_count_themselves() -> None:
    details = {"generated_tokens": 2, "input_length": 9}
    events = [{"token": {"id": 1}}, {"token": {"id": 2}, "details": details}]
    said = measure(answer(*events), PROTOCOLS["generate_stream"])
    assert (said["tokens"], said["prompt_tokens"], len(said["gaps_us"])) == (2, 9, 1)
    events = [
        {"text": "", "meta_info": {"completion_tokens": n, "prompt_tokens": 4, "cached_tokens": 2}}
        for n in (1, 4)
    ]
    said = measure(answer(*events), PROTOCOLS["sglang"])
    assert (said["tokens"], said["cached_tokens"], len(said["gaps_us"])) == (4, 2, 3)


@pytest.mark.parametrize(
    ("exchange", "failure"),
    [
        (answer("[DONE]"), "the answer holds no token"),
        (answer("{"), "not an answer of this protocol"),
        (answer("[1]"), "not an answer of this protocol"),
        (answer(choice("a"), {"error": {"message": "broken"}}), "error event"),
        (Exchange(0.0, [(1.0, b"no")], 503), "HTTP 503: no"),
        (Exchange(0.0, [], 0, failure="connection lost"), "connection lost"),
        (Exchange(0.0, [(1.0, b"zz\r\ndata")], 200, chunked=True), "not an answer"),
    ],
)
def test_failures(exchange: Exchange, failure: str) -> None:
    assert measure(exchange, PROTOCOLS["completions"])["failure"].startswith(failure)


def test_bodies_carry_what_was_asked() -> None:
    asking = Asking(model="m", temperature=0.5, extra={"top_p": None, "user": "me"})
    body = request_body("completions", Prompt([1, 2], 3), asking)
    assert body["prompt"] == [1, 2] and body["max_tokens"] == 3 and body["ignore_eos"]
    assert "top_p" not in body and body["user"] == "me"
    held = Prompt("x", 3, {"type": "object"})
    assert request_body("chat", held, asking)["response_format"]["type"] == "json_schema"
    assert request_body("sglang", held, asking)["sampling_params"]["json_schema"]
    assert request_body("generate_stream", held, asking)["parameters"]["grammar"]["type"] == "json"
    for name in PROTOCOLS:
        assert "ignore_eos" not in json.dumps(request_body(name, held, asking))


def test_endpoints_choose_the_protocol() -> None:
    assert protocol_named("tgi") == ("generate_stream", "/generate_stream")
    assert protocol_named("vllm", "/x/v1/chat/completions") == ("chat", "/x/v1/chat/completions")
    with pytest.raises(ValueError, match="expected a path that ends with"):
        protocol_named("vllm", "/v1/embeddings")
