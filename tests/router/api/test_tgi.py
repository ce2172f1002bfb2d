"""TGI's own routes: shapes, headers and meanings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

from penstock_router.request import Sampling
from penstock_router.request_wire import SAMPLING
from support.fake_engine import EOS, FakeEngine


def script(client: Any, text: str) -> None:
    client.engine.script = client.text.tokenizer.encode(text)


def events(text: str) -> list[dict[str, Any]]:
    """TGI's stream: an event is one line that begins with `data:`, without a space."""
    parts = text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data:{") and "\n" not in part for part in parts)
    return [json.loads(part[5:]) for part in parts]


async def test_generate(serve: Any) -> None:
    client = await serve()
    script(client, "The capital of France is Paris</s>")
    async with client.session.post(client.url + "/generate", json={"inputs": "hi"}) as response:
        assert await response.json() == {"generated_text": "The capital of France is Paris"}
        for name in ("total", "validation", "queue", "inference"):
            assert response.headers[f"x-{name}-time"].isdigit()
        assert response.headers["x-time-per-token"] == "1"
        assert float(response.headers["x-compute-time"]) > 0
        assert response.headers["x-compute-type"] == "cpu"
        assert response.headers["x-compute-characters"] == "2"
        assert response.headers["x-prompt-tokens"] == "2"
        assert response.headers["x-generated-tokens"] == "7"


async def test_details(serve: Any) -> None:
    client = await serve(FakeEngine(cached_tokens=1))
    script(client, "The capital</s>")
    parameters = {"details": True, "decoder_input_details": True, "top_n_tokens": 3, "seed": 7}
    parameters |= {"do_sample": True}
    _, body = await client.post("/generate", {"inputs": "hi", "parameters": parameters})
    details = body["details"]
    assert details.pop("prefill") == [
        {"id": 76, "text": "h", "logprob": None},
        {"id": 77, "text": "i", "logprob": -0.5},
    ]
    assert details.pop("tokens")[1:] == [
        {"id": 302, "text": " capital", "logprob": -0.75, "special": False},
        {"id": 2, "text": "</s>", "logprob": -0.75, "special": True},
    ]
    tops = details.pop("top_tokens")
    assert len(tops) == 3
    assert tops[2][0] == {"id": 2, "text": "</s>", "logprob": -0.25, "special": True}
    assert tops[2][2]["logprob"] is None  # minus infinity is no JSON
    assert details == {
        "finish_reason": "eos_token",
        "generated_tokens": 3,
        "seed": 7,
        "cached_tokens": 1,
    }
    [request] = client.engine.requests
    assert request.prompt_logprobs and request.sampling.logprobs and request.sampling.top_n == 3


async def test_stream(serve: Any) -> None:
    client = await serve()
    script(client, 'a "b"\n 👍</s>')
    status, text = await client.stream(
        "/generate_stream",
        {"inputs": "hi", "parameters": {"details": True, "return_full_text": True, "seed": 0}},
    )
    received = events(text)
    assert status == 200
    assert [event["index"] for event in received] == list(range(1, len(received) + 1))
    assert all(list(e) == ["index", "token", "generated_text", "details"] for e in received)
    assert "".join(e["token"]["text"] for e in received) == 'a "b"\n 👍</s>'
    assert [e["generated_text"] for e in received[:-1]] == [None] * (len(received) - 1)
    assert received[-1]["generated_text"] == 'hia "b"\n 👍'
    assert received[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": len(received),
        "seed": None,
        "input_length": 2,
        "cached_tokens": 0,
    }
    assert received[0]["token"] == {"id": 69, "text": "a", "logprob": -0.25, "special": False}


async def test_stream_without_details(serve: Any) -> None:
    client = await serve()
    script(client, "a</s>")
    _, text = await client.stream("/generate_stream", {"inputs": "hi"})
    assert events(text)[-1]["details"] is None
    assert events(text)[-1]["generated_text"] == "a"


@pytest.mark.parametrize("tokens_per_turn", [1, 3, 100])
async def test_tokens_of_a_turn_share_a_chunk(serve: Any, tokens_per_turn: int) -> None:
    client = await serve(FakeEngine(tokens_per_turn=tokens_per_turn))
    script(client, "The capital of France is Paris</s>")
    body = b'{"inputs":"hi"}'
    answer = await client.raw(
        b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    assert len(events(b"".join(chunks).decode())) == 7
    assert len(chunks) <= -(-7 // tokens_per_turn)


async def test_stream_over_http_1_0(serve: Any) -> None:
    """No chunks: the end of the connection ends the answer."""
    client = await serve()
    body = b'{"inputs":"hi","parameters":{"max_new_tokens":2}}'
    answer = await client.raw(
        b"POST /generate_stream HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert len(events(answer.partition(b"\r\n\r\n")[2].decode())) == 2


async def test_compat_route(serve: Any) -> None:
    """A list of one, with the prompt unless told otherwise, or a stream."""
    client = await serve()
    script(client, " you</s>")
    assert await client.post("/", {"inputs": "hi"}) == (200, [{"generated_text": "hi you"}])
    body = {"inputs": "hi", "parameters": {"return_full_text": False}}
    assert await client.post("/", body) == (200, [{"generated_text": " you"}])
    _, text = await client.stream("/", {"inputs": "hi", "stream": True})
    assert events(text)[-1]["generated_text"] == "hi you"


async def test_stop_sequences_stay_in_the_text(serve: Any) -> None:
    """As TGI has it; but also when they end inside a token, where TGI misses them."""
    client = await serve()
    script(client, "The capital of France")
    parameters = {"stop": ["apit"], "details": True}
    _, body = await client.post("/generate", {"inputs": "hi", "parameters": parameters})
    assert body["generated_text"] == "The capit"
    assert body["details"]["finish_reason"] == "stop_sequence"
    assert body["details"]["generated_tokens"] == 2
    _, text = await client.stream("/generate_stream", {"inputs": "hi", "parameters": parameters})
    first, last = events(text)  # one a token, though the engine hears of the stop later
    assert (first["index"], first["generated_text"]) == (1, None)
    assert (last["index"], last["generated_text"]) == (2, "The capit")
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["details"]["generated_tokens"] == 2
    parameters["stop"] = ["<|im_start|>"]  # a special token that is not EOS
    script(client, "The<|im_start|>x")
    _, body = await client.post("/generate", {"inputs": "hi", "parameters": parameters})
    assert body["generated_text"] == "The"
    assert body["details"]["finish_reason"] == "stop_sequence"


async def test_best_of(serve: Any) -> None:
    """The winner has the highest mean log-probability; the fake engine's depends on the seed."""
    client = await serve()
    for _ in range(6):
        parameters = {"best_of": 2, "do_sample": True, "details": True, "max_new_tokens": 3}
        _, body = await client.post("/generate", {"inputs": "hi", "parameters": parameters})
        [other] = body["details"]["best_of_sequences"]
        assert body["details"]["tokens"][0]["logprob"] >= other["tokens"][0]["logprob"]
        assert body["details"]["seed"] != other["seed"]
        assert len(other["tokens"]) == 3 and other["finish_reason"] == "length"
    assert len(client.engine.requests) == 12


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [
        ("absent", 1.0),  # TGI samples without parameters
        ({}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"temperature": 0.5}, 0.5),
        ({"temperature": 1.0}, 0.0),
        ({"top_k": 5}, 1.0),
        ({"top_p": 0.9}, 1.0),
        ({"top_p": 1.0}, 0.0),
        ({"typical_p": 0.9}, 1.0),
        ({"min_p": 0.1}, 1.0),
        ({"repetition_penalty": 1.2}, 0.0),
        ({"temperature": 1e-9}, 0.0),
    ],
)
async def test_when_it_samples(serve: Any, parameters: Any, temperature: float) -> None:
    client = await serve()
    body = {"inputs": "hi"} | ({} if parameters == "absent" else {"parameters": parameters})
    await client.post("/generate", body)
    assert client.engine.requests[0].sampling.temperature == temperature


async def test_every_parameter_reaches_the_engine(serve: Any) -> None:
    client = await serve()
    sampling = {
        "temperature": 0.7, "top_k": 5, "top_p": 0.9, "typical_p": 0.8, "min_p": 0.05,
        "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5,
        "seed": 2**64 - 1,
    }  # fmt: skip
    parameters = sampling | {
        "logit_bias": {"5": -100, "6": 1.5}, "ignore_eos": True, "priority": -7,
        "max_new_tokens": 4, "truncate": 3,
    }  # fmt: skip
    status, _ = await client.post(
        "/generate", {"inputs": "The capital of France is", "parameters": parameters}
    )
    [request] = client.engine.requests
    assert status == 200
    asked = Sampling(**sampling, logit_bias=((5, -100.0), (6, 1.5)))  # no log-probabilities
    assert SAMPLING.encode(request.sampling) == SAMPLING.encode(asked)
    assert (request.ignore_eos, request.priority, request.max_new_tokens) == (True, -7, 4)
    assert tuple(request.prompt) == tuple(
        client.text.tokenizer.encode("The capital of France is")[-3:]
    )


async def test_ignore_eos(serve: Any) -> None:
    client = await serve(FakeEngine(script=[EOS, 10]))
    parameters = {"ignore_eos": True, "max_new_tokens": 6, "details": True}
    _, body = await client.post("/generate", {"inputs": "hi", "parameters": parameters})
    assert body["details"]["generated_tokens"] == 6


async def test_priority_header(serve: Any) -> None:
    client = await serve()
    await client.post("/generate", {"inputs": "hi"}, headers={"x-priority": "9"})
    body = {"inputs": "hi", "parameters": {"priority": 0}}
    await client.post("/generate", body, headers={"x-priority": "9"})
    assert [request.priority for request in client.engine.requests] == [9, 0]
    for wrong in ("101", "x", "1.0", ""):
        status, _ = await client.post("/generate", body, headers={"x-priority": wrong})
        assert status == 422


async def test_tokens_that_there_is_room_for(serve: Any) -> None:
    client = await serve()
    for wanted in (None, 94):
        await client.post("/generate", {"inputs": "hi", "parameters": {"max_new_tokens": wanted}})
    assert [request.max_new_tokens for request in client.engine.requests] == [94, 94]
    status, body = await client.post(
        "/generate", {"inputs": "hi", "parameters": {"max_new_tokens": 95}}
    )
    assert (status, body["error"]) == (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 96. "
        "Given: 2 `inputs` tokens and 95 `max_new_tokens`",
    )


async def test_tokenize(serve: Any) -> None:
    client = await serve()
    status, tokens = await client.post("/tokenize", {"inputs": "é the"})
    assert status == 200
    assert [token["text"] for token in tokens] == ["é", " the"]
    assert tokens[1]["start"] == 1 and tokens[1]["stop"] == 5


async def test_vertex(serve: Any) -> None:
    client = await serve()
    script(client, "a</s>")
    messages = [{"role": "user", "content": "hi"}]
    body = {"instances": [{"inputs": "hi", "parameters": {"seed": 1}}, {"messages": messages}]}
    assert await client.post("/vertex", body) == (200, {"predictions": ["a", "a"]})
    status, _ = await client.post("/vertex", {"instances": [{"inputs": "hi"}] * 5})
    assert status == 422


async def test_invocations(serve: Any) -> None:
    client = await serve()
    script(client, "a</s>")
    assert (await client.post("/invocations", {"inputs": "x"}))[1] == [{"generated_text": "xa"}]
    messages = [{"role": "user", "content": "hi"}]
    _, chat = await client.post("/invocations", {"messages": messages})
    assert chat["choices"][0]["message"]["content"] == "a"
    _, completion = await client.post("/invocations", {"prompt": "hi"})
    assert completion["choices"][0]["text"] == "a"
    assert (await client.post("/invocations", {"x": 1}))[0] == 422


async def test_huggingface_hub(serve: Any) -> None:
    """The client that TGI's users have; it talks to POST /."""
    import asyncio

    client = await serve()
    script(client, "The capital is</s>")
    hub = InferenceClient(client.url)

    def talk() -> None:
        assert hub.text_generation("hi", return_full_text=False) == "The capital is"
        answer = hub.text_generation("hi", details=True, return_full_text=False, do_sample=True)
        assert answer.details.finish_reason == "eos_token"
        assert [token.text for token in answer.details.tokens] == ["The", " capital", " is", "</s>"]
        assert list(hub.text_generation("hi", stream=True)) == ["The", " capital", " is", "</s>"]
        *_, last = hub.text_generation("hi", stream=True, details=True)
        assert last.details.finish_reason == "eos_token" and last.generated_text.endswith(" is")
        messages = [{"role": "user", "content": "hi"}]
        chat = hub.chat_completion(messages, max_tokens=20)
        assert chat.choices[0].message.content == "The capital is"
        pieces = [c.choices[0].delta.content for c in hub.chat_completion(messages, stream=True)]
        assert "".join(piece or "" for piece in pieces) == "The capital is"
        with pytest.raises(ValidationError, match="must have less than 64 tokens. Given: 80"):
            hub.text_generation("h" * 80)
        with pytest.raises(HfHubHTTPError, match="must have less than 64 tokens"):
            hub.chat_completion([{"role": "user", "content": "h" * 80}])

    await asyncio.to_thread(talk)
