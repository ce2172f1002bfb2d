"""The fields that vLLM's clients send, on OpenAI's routes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_router.token_rules import TokenRules
from support.fake_engine import RANK

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}


def script(client: Any, text: str) -> list[int]:
    client.engine.script = client.text.tokenizer.encode(text)
    return list(client.engine.script)


def body_of(path: str) -> dict[str, Any]:
    return HI if path == CHAT else {"prompt": "hi"}


async def streamed(client: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, text = await client.stream(path, {**body, "stream": True})
    assert status == 200, text
    events = text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def shown(choice: dict[str, Any]) -> str:
    part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    return str(part["content"])


async def both(client: Any, path: str, fields: dict[str, Any]) -> tuple[str, str, Any]:
    """Text, finish and stop reason; whole and streamed say the same."""
    body = body_of(path) | fields
    status, answer = await client.post(path, body)
    assert status == 200, answer
    [choice] = answer["choices"]
    said = shown(choice), choice["finish_reason"], choice["stop_reason"]
    chunks = [chunk["choices"][0] for chunk in await streamed(client, path, body)]
    last = chunks[-1]
    assert said == ("".join(map(shown, chunks)), last["finish_reason"], last["stop_reason"])
    return said


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_ends(serve: Any, path: str) -> None:
    client = await serve()
    ids = script(client, "The capital of France</s>")
    stop = {"stop_token_ids": [ids[2]]}
    text = client.text.tokenizer.decode(ids[:2])
    kept = client.text.tokenizer.decode(ids[:3])
    assert await both(client, path, {"stop_token_ids": []}) == await both(client, path, {})
    assert await both(client, path, stop) == (text, "stop", ids[2])
    keep = {"include_stop_str_in_output": True}
    assert await both(client, path, stop | keep) == (kept, "stop", ids[2])
    assert await both(client, path, {"stop": ["zz", "capital"]}) == ("The ", "stop", "capital")
    # Until `min_tokens` are there, stop sequences are text and ends are barred in the sampler.
    everything = "The capital of France"
    least = {"min_tokens": len(ids) - 1, "stop": ["capital"], "stop_token_ids": [ids[0]]}
    client.engine.script = ids[1:]
    assert await both(client, path, least) == (everything[3:], "stop", None)
    rules = client.engine.requests[-1].sampling.rules
    assert rules == TokenRules(
        late=tuple(sorted({*client.text.eos_ids, ids[0]})), min_tokens=len(ids) - 1
    )
    # The end is not shown where special tokens are, unless it is asked for.
    script(client, "The<s> capital</s>")
    names = {"skip_special_tokens": False}
    assert (await both(client, path, names))[0] == "The<s> capital"
    assert (await both(client, path, names | keep))[0] == "The<s> capital</s>"
    assert (await both(client, path, {}))[0] == "The capital"
    assert await both(client, path, names | {"stop": "<s>"}) == (
        "The",
        "stop",
        "<s>",
    )


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_rules_reach_the_engine(serve: Any, path: str) -> None:
    client = await serve()
    encode = client.text.tokenizer.encode
    fields = {"bad_words": ["capital", " of"], "allowed_token_ids": [9, 8, 5]}
    assert (await client.post(path, body_of(path) | fields))[0] == 200
    rules = client.engine.requests[-1].sampling.rules
    assert [*rules.allowed] == [9, 8, 5] and not rules.late and not rules.green_bias
    words = ("capital", " capital", " of")
    assert set(rules.banned) == {tuple(encode(word, False)) for word in words}
    await client.post(path, body_of(path) | {"ignore_eos": True, "min_tokens": 2})
    assert client.engine.requests[-1].sampling.rules == TokenRules()
    await client.post(path, body_of(path) | {"stop_token_ids": [5]})
    assert client.engine.requests[-1].sampling.rules is None


async def test_watermark(serve: Any) -> None:
    client = await serve(watermark_gamma=0.25, watermark_delta=3.0)
    for path in ("/generate", "/generate_stream", "/"):
        body = {"inputs": "hi", "parameters": {"watermark": True}}
        assert (await client.stream(path, body))[0] == 200
        rules = client.engine.requests[-1].sampling.rules
        assert rules == TokenRules(green_share=0.25, green_bias=3.0)


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_token_ids(serve: Any, path: str) -> None:
    client = await serve()
    ids = script(client, 'The "👍"</s>')
    body = body_of(path) | {"return_token_ids": True, "n": 2, "seed": 1}
    _, answer = await client.post(path, body)
    prompt = [*client.engine.requests[0].prompt]
    where = [answer] if path == CHAT else answer["choices"]
    assert all(place["prompt_token_ids"] == prompt for place in where)
    assert [choice["token_ids"] for choice in answer["choices"]] == [ids] * 2
    chunks = await streamed(client, path, body)
    told = [c.get("prompt_token_ids") or c["choices"][0].get("prompt_token_ids") for c in chunks]
    assert [one for one in told if one] == [prompt] * 2
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert sum((choice["token_ids"] for choice in own), []) == ids
        assert "".join(map(shown, own)) == 'The "👍"'


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_usage_in_every_chunk(serve: Any, path: str) -> None:
    client = await serve()
    ids = script(client, "The capital of France</s>")
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await streamed(client, path, body_of(path) | {"stream_options": options})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == counts[-2] == len(ids)
    assert set(counts) >= set(range(1, len(ids)))
    prompt = len(client.engine.requests[0].prompt)
    assert all(
        c["usage"]["total_tokens"] == prompt + n for c, n in zip(chunks, counts, strict=True)
    )
    alone = {"stream_options": {"continuous_usage_stats": True}}
    assert all("usage" not in c for c in await streamed(client, path, body_of(path) | alone))


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_prompt_logprobs(serve: Any, path: str) -> None:
    client = await serve()
    _, answer = await client.post(path, body_of(path) | {"prompt_logprobs": 2, "max_tokens": 1})
    [request] = client.engine.requests
    assert request.prompt_logprobs and request.prompt_top_n == 2
    entries = (answer if path == CHAT else answer["choices"][0])["prompt_logprobs"]
    assert len(entries) == len(request.prompt) and entries[0] is None
    for token, entry in zip(request.prompt[1:], entries[1:], strict=True):
        text = client.text.token_text(token)
        assert entry[str(token)] == {"logprob": -0.5, "rank": 1, "decoded_token": text}
        assert entry["11"]["rank"] == 2


async def test_the_rank_of_a_prompt_token_that_is_not_among_the_most_likely(serve: Any) -> None:
    client = await serve()
    _, answer = await client.post(
        COMPLETION, body_of(COMPLETION) | {"prompt_logprobs": 0, "max_tokens": 1}
    )
    [request] = client.engine.requests
    entries = answer["choices"][0]["prompt_logprobs"]
    for token, entry in zip(request.prompt[1:], entries[1:], strict=True):
        assert list(entry) == [str(token)] and entry[str(token)]["rank"] == RANK


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_names_of_tokens_and_of_requests(serve: Any, path: str) -> None:
    client = await serve()
    ids = script(client, "The capital</s>")
    logprobs = {"logprobs": True, "top_logprobs": 1} if path == CHAT else {"logprobs": 1}
    body = body_of(path) | logprobs | {"return_tokens_as_token_ids": True, "request_id": "my-1"}
    _, answer = await client.post(path, body)
    assert answer["id"].endswith("-my-1")
    found = answer["choices"][0]["logprobs"]
    names = [entry["token"] for entry in found["content"]] if path == CHAT else found["tokens"]
    assert names == [f"token_id:{token}" for token in ids[:-1]]
    assert (await client.post(path, body_of(path) | {"request_id": "a b"}))[0] == 422


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
async def test_truncated_prompts(serve: Any, path: str) -> None:
    client = await serve()
    await client.post(path, body_of(path) | {"max_tokens": 1})
    [whole] = client.engine.requests
    await client.post(path, body_of(path) | {"truncate_prompt_tokens": 1, "max_tokens": 1})
    assert [*client.engine.requests[-1].prompt] == [*whole.prompt[-1:]]
    long = {"messages": [{"role": "user", "content": "the " * 80}], "prompt": "the " * 80}
    body = {name: long[name] for name in body_of(path)}
    assert (await client.post(path, body))[0] == 422
    body |= {"truncate_prompt_tokens": -1, "max_tokens": 1}
    assert (await client.post(path, body))[0] == 200
    assert len(client.engine.requests[-1].prompt) == 64
    assert (await client.post(path, body | {"truncate_prompt_tokens": 0}))[0] == 422


async def test_chat_repeats_what_it_continues(serve: Any) -> None:
    client = await serve()
    script(client, " of France</s>")
    messages = [*HI["messages"], {"role": "assistant", "content": "The capital"}]
    body: dict[str, Any] = {"messages": messages, "echo": True}
    assert (await both(client, CHAT, body))[0] == "The capital of France"
    assert (await both(client, CHAT, body | {"echo": False}))[0] == " of France"
    assert (await both(client, CHAT, HI | {"echo": True}))[0] == " of France"


async def test_best_of_shows_the_best(serve: Any) -> None:
    """The fake's log-probabilities are lower for odd seeds."""
    client = await serve()
    script(client, "a</s>")
    body = {"prompt": ["hi", "you"], "best_of": 3, "n": 2, "seed": 1, "logprobs": 0}
    _, answer = await client.post(COMPLETION, body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    best = [choice["logprobs"]["token_logprobs"][0] for choice in answer["choices"]]
    assert best == [-0.25, -0.75, -0.25, -0.75]
    assert answer["usage"]["completion_tokens"] == 12 and len(client.engine.requests) == 6
    _, answer = await client.post(COMPLETION, {"prompt": "hi", "best_of": 2})
    assert answer["choices"][0]["logprobs"] is None


async def test_special_tokens_are_not_added(serve: Any) -> None:
    client = await serve()
    await client.post(COMPLETION, {"prompt": "hi", "max_tokens": 1, "add_special_tokens": False})
    encode = client.text.tokenizer.encode
    assert [*client.engine.requests[0].prompt] == encode("hi", False)
