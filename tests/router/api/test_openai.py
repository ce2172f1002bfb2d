"""OpenAI's routes, with raw requests and with OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from penstock_router.request import Sampling
from penstock_router.request_wire import SAMPLING
from support.fake_engine import FakeEngine

HI = [{"role": "user", "content": "hi"}]


def script(client: Any, text: str) -> None:
    client.engine.script = client.text.tokenizer.encode(text)


def chunks(text: str) -> list[dict[str, Any]]:
    parts = text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


async def test_chat(serve: Any) -> None:
    client = await serve(FakeEngine(cached_tokens=3))
    script(client, "The capital</s>")
    status, body = await client.post("/v1/chat/completions", {"messages": HI, "model": "tgi"})
    assert status == 200
    assert body.pop("id").startswith("chatcmpl-") and body.pop("created") > 1.7e9
    assert body.pop("system_fingerprint").startswith("penstock-")
    assert body == {
        "object": "chat.completion",
        "model": "some/model",  # what really ran
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital"},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 3,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }


async def test_chat_stream(serve: Any) -> None:
    client = await serve()
    script(client, 'The "👍"</s>')
    _, text = await client.stream(
        "/v1/chat/completions",
        {"messages": HI, "stream": True, "stream_options": {"include_usage": True}},
    )
    received = chunks(text)
    assert len({chunk["id"] for chunk in received}) == 1 and received[0]["id"]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in received)
    *shown, last, final = received
    assert shown[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in shown)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in shown) == 'The "👍"'
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in shown)
    assert all(chunk["usage"] is None for chunk in [*shown, last])
    assert last["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert final["choices"] == [] and final["usage"]["prompt_tokens"] == 19


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "expected", "reason"),
    [
        ("capital", "The ", "stop"),
        ([" capital of", "zzz"], "The", "stop"),
        (["apit"], "The c", "stop"),
        (["The"], "", "stop"),
        (["capital of Germany"], "The capital of France", "stop"),  # held back, then let go
        (["<|im_end|>"], "The capital of France", "stop"),
    ],
)
async def test_stop_text_is_not_shown(
    serve: Any, stream: bool, stop: Any, expected: str, reason: str
) -> None:
    client = await serve()
    script(client, "The capital of France</s>")
    for path, prompt in (
        ("/v1/chat/completions", {"messages": HI}),
        ("/v1/completions", {"prompt": "hi"}),
    ):
        body = {**prompt, "stop": stop, "stream": stream}
        if stream:
            choices = [c["choices"][0] for c in chunks((await client.stream(path, body))[1])]
            shown = "".join(c.get("text") or c.get("delta", {}).get("content", "") for c in choices)
            assert (shown, choices[-1]["finish_reason"]) == (expected, reason)
        else:
            [choice] = (await client.post(path, body))[1]["choices"]
            shown = choice.get("text", choice.get("message", {}).get("content"))
            assert (shown, choice["finish_reason"]) == (expected, reason)


async def test_length(serve: Any) -> None:
    client = await serve()
    body = {"messages": HI, "max_completion_tokens": 2, "max_tokens": 5}
    _, answer = await client.post("/v1/chat/completions", body)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert client.engine.requests[0].max_new_tokens == 2


async def test_n_choices(serve: Any) -> None:
    client = await serve()
    script(client, "a the</s>")
    body = {"messages": HI, "n": 2, "seed": -1}
    _, answer = await client.post("/v1/chat/completions", body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == 19 and answer["usage"]["completion_tokens"] == 6
    assert [r.sampling.seed for r in client.engine.requests] == [2**64 - 1, 0]
    _, text = await client.stream("/v1/chat/completions", body | {"stream": True})
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks(text) if c["choices"][0]["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == "a the"
        assert own[0]["delta"]["role"] == "assistant" and own[-1]["finish_reason"] == "stop"


async def test_prompts_of_every_kind(serve: Any) -> None:
    client = await serve()
    for prompt, count in [("hi", 1), (["hi", "you"], 2), ([5, 6, 7], 1), ([[5, 6], [7]], 2)]:
        _, answer = await client.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        assert [choice["index"] for choice in answer["choices"]] == list(range(count))
    prompts = [request.prompt for request in client.engine.requests]
    assert [tuple(prompt) for prompt in prompts[3:]] == [(5, 6, 7), (5, 6), (7,)]
    await client.post("/v1/completions", {"prompt": [0, 1, 699], "max_tokens": 1})
    assert [*client.engine.requests[-1].prompt] == [0, 1, 699]  # 0 and 1, but not their doubles:
    for wrong in (
        "",
        [],
        [[]],
        [""],
        [[5], "x"],
        [5, "x"],
        [1.5],
        5,
        {"a": 1},
        [True],
        [5, True],
        [5, False],
        [5, None],
        [[5], [True]],
        [2**64],
    ):
        status, answer = await client.post("/v1/completions", {"prompt": wrong})
        assert status == 422 and "`prompt`" in answer["error"]["message"], wrong
    status, answer = await client.post("/v1/completions", {"prompt": ["x"] * 129})
    assert status == 422 and "maximum allowed batch size of 128" in answer["error"]["message"]


@pytest.mark.parametrize("wrong", [-1, 700, 2**31, 2**32 - 1, 2**32, -(2**31), 2**40, 2**64 - 1])
async def test_token_ids_out_of_the_vocabulary(serve: Any, wrong: int) -> None:
    """Whether or not they fit the 32 bits that ids are kept in; the first of them is named."""
    client = await serve()
    rule = f"Input validation error: `prompt` must hold token ids >= 0 and < 700. Given: {wrong}"
    for prompt in ([wrong], [0, 699, wrong, -5], [[5], [6, wrong]]):
        status, answer = await client.post("/v1/completions", {"prompt": prompt})
        assert (status, answer["error"]["message"]) == (422, rule)
    assert not client.engine.requests


async def test_completion_stream(serve: Any) -> None:
    client = await serve()
    script(client, "a the</s>")
    _, text = await client.stream("/v1/completions", {"prompt": ["x", "y"], "stream": True})
    received = chunks(text)
    for index in (0, 1):
        own = [c["choices"][0] for c in received if c["choices"][0]["index"] == index]
        assert [c["text"] for c in own] == ["a", " the", ""]
        assert [c["finish_reason"] for c in own] == [None, None, "stop"]
    assert {chunk["object"] for chunk in received} == {"text_completion"}
    assert all("usage" not in chunk for chunk in received)


async def test_chat_logprobs(serve: Any) -> None:
    client = await serve()
    script(client, "a👍</s>")
    body = {"messages": HI, "logprobs": True, "top_logprobs": 2, "seed": 0}
    _, answer = await client.post("/v1/chat/completions", body)
    content = answer["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "a",
        "logprob": -0.25,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.25, "bytes": [97]},
            {"token": "'", "logprob": -1.5, "bytes": [39]},
        ],
    }
    assert len(content) == 5 and content[1]["bytes"] == [240]  # a quarter of the emoji
    _, text = await client.stream("/v1/chat/completions", body | {"stream": True})
    streamed = [c["choices"][0]["logprobs"] for c in chunks(text)]
    assert sum((part["content"] for part in streamed if part), []) == content


async def test_completion_logprobs(serve: Any) -> None:
    client = await serve()
    script(client, "a the</s>")
    _, answer = await client.post("/v1/completions", {"prompt": "x", "logprobs": 1, "seed": 0})
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["a", " the"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"a": -0.25}, {" the": -0.25}],
        "text_offset": [0, 1],
    }


async def test_parameters_reach_the_engine(serve: Any) -> None:
    client = await serve()
    sampling = {
        "temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "typical_p": 0.5, "seed": 5,
        "frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.3,
    }  # fmt: skip
    body = {"messages": HI, **sampling, "logit_bias": {"5": 1}, "ignore_eos": True, "priority": 3}
    await client.post("/v1/chat/completions", body)
    await client.post("/v1/chat/completions", {"messages": HI})
    await client.post("/v1/chat/completions", {"messages": HI, "temperature": 0, "top_k": -1})
    first, second, third = client.engine.requests
    asked = Sampling(**sampling, logit_bias=((5, 1.0),))
    assert SAMPLING.encode(first.sampling) == SAMPLING.encode(asked)
    assert first.ignore_eos and first.priority == 3
    assert second.sampling.temperature == 1.0 and second.sampling.presence_penalty == 0.0
    assert third.sampling.temperature == 0.0 and third.sampling.top_k == 0


async def test_served_model_name(serve: Any) -> None:
    client = await serve(served_model_name=("llama",))
    status, answer = await client.post("/v1/chat/completions", {"messages": HI, "model": "llama"})
    assert (status, answer["model"]) == (200, "llama")
    status, answer = await client.post("/v1/chat/completions", {"messages": HI, "model": "other"})
    assert (status, answer["error_type"]) == (404, "not_found")
    assert (await client.get("/v1/models/llama"))[0] == 200
    assert (await client.get("/v1/models/some/model"))[0] == 404
    assert json.loads((await client.get("/v1/models"))[1])["data"][0]["id"] == "llama"


async def test_messages(serve: Any) -> None:
    client = await serve()
    messages = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "user", "name": "Ann", "content": "x"},
        {"role": "assistant", "content": "The capital"},
    ]
    _, body = await client.post("/chat_tokenize", {"messages": messages})
    assert body["templated_text"] == (
        "<s><|im_start|>system\nab<|im_end|>\n<|im_start|>user Ann\nx<|im_end|>\n"
        "<|im_start|>assistant\nThe capital"
    )
    text = body["templated_text"]
    tokens = body["tokenize_response"]
    assert all(text[t["start"] : t["stop"]] == t["text"] for t in tokens)
    await client.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert tuple(client.engine.requests[0].prompt) == tuple(token["id"] for token in tokens)


async def test_template_errors(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock_router.templates.pool import TemplatePool
    from penstock_router.templates.template import Script

    client = await serve()
    for source, kind, text in [
        ("{{ raise_exception('no system') }}", "template_error", "Template error: no system"),
        ("{{ x.y }}", "missing_template_variable", "Missing template variable: 'x' is undefined"),
        (
            "{% for i in range(10**9) %}{% endfor %}",
            "template_error",
            "Template error: Range too big. The sandbox blocks ranges larger than MAX_RANGE "
            "(100000).",
        ),
    ]:
        pool = TemplatePool(Script(source, {}), 1)
        monkeypatch.setattr(client.text, "_chat_template", pool)
        answer = await client.post("/v1/chat/completions", {"messages": HI, "stream": True})
        pool.close()
        assert answer[0] == 422 and answer[1]["error_type"] == kind
        assert answer[1]["error"]["message"] == text
    monkeypatch.setattr(client.text, "_chat_template", None)
    status, answer = await client.post("/v1/chat/completions", {"messages": HI})
    assert (status, answer["error"]["message"]) == (422, "Template error: template not found")
    assert await client.count('tgi_request_failure{err="template"}') == 4


async def test_openai_client(serve: Any) -> None:
    client = await serve(served_model_name=("m",), api_key=("secret",))
    script(client, "The capital</s>")
    async with openai.AsyncOpenAI(
        base_url=client.url + "/v1", api_key="secret", max_retries=0
    ) as sdk:
        chat = sdk.chat.completions
        answer = await chat.create(model="m", messages=HI, logprobs=True, top_logprobs=1, user="u")
        assert answer.choices[0].message.content == "The capital"
        assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "The"
        stream = await chat.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        pieces = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
        assert text == "The capital" and pieces[-1].usage.total_tokens == 22
        done = await sdk.completions.create(model="m", prompt=["x", "y"], logprobs=1)
        assert [choice.text for choice in done.choices] == ["The capital"] * 2
        assert [model.id async for model in await sdk.models.list()] == ["m"]
        with pytest.raises(openai.UnprocessableEntityError, match="top_p"):
            await chat.create(model="m", messages=HI, top_p=0)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await chat.create(model="x", messages=HI)
        client.engine.fail_after = 2
        stream = await chat.create(model="m", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="Request failed during generation"):
            async for _ in stream:
                pass
    async with openai.AsyncOpenAI(base_url=client.url + "/v1", api_key="x", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError):
            await sdk.models.list()
