"""Completions that repeat their prompts, and prompts that are only scored."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

import pytest

from penstock_router.api.logprobs import CompletionLogprobs
from penstock_router.text.library import TokenizerError
from penstock_router.text.tokenizer import Tokenizer
from support.fake_engine import FakeEngine


def script(client: Any, text: str) -> None:
    client.engine.script = client.text.tokenizer.encode(text)


async def whole(client: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, answer = await client.post("/v1/completions", body)
    assert status == 200, answer
    choices: list[dict[str, Any]] = answer["choices"]
    return choices


async def streamed(client: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of a stream, put together."""
    status, text = await client.stream("/v1/completions", body | {"stream": True})
    assert status == 200
    parts = text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    choices: dict[int, dict[str, Any]] = {}
    for part in parts[:-2]:
        [piece] = json.loads(part.removeprefix("data: "))["choices"]
        known = choices.setdefault(piece["index"], piece | {"text": "", "logprobs": None})
        known["text"] += piece["text"]
        known["finish_reason"] = piece["finish_reason"]
        known |= {"stop_reason": piece.get("stop_reason")}
        if logprobs := piece["logprobs"]:
            joined = known["logprobs"] or dict.fromkeys(logprobs, [])
            known["logprobs"] = {name: joined[name] + logprobs[name] for name in logprobs}
    return [choices[index] for index in sorted(choices)]


async def test_text_is_repeated_as_it_was_sent(serve: Any) -> None:
    client = await serve()
    script(client, " of France</s>")
    body: dict[str, Any] = {"prompt": "The capital", "echo": True}
    for choices in (await whole(client, body), await streamed(client, body)):
        assert [choice["text"] for choice in choices] == ["The capital of France"]
        assert choices[0]["logprobs"] is None and choices[0]["finish_reason"] == "stop"
    assert not any(request.prompt_logprobs for request in client.engine.requests)


@pytest.mark.parametrize("top_n", [0, 1, 3])
async def test_log_probabilities_of_prompt_and_answer(serve: Any, top_n: int) -> None:
    client = await serve()
    script(client, " of</s>")
    body = {"prompt": "The 👍 capital", "echo": True, "logprobs": top_n, "seed": 0}
    [choice] = await whole(client, body)
    assert await streamed(client, body) == [choice]
    text, shown = choice["text"], choice["logprobs"]
    assert text == "The 👍 capital of"
    quarter = "\ufffd"
    assert shown["tokens"] == ["The", " ", *[quarter] * 4, " capital", " of", "</s>"]
    assert shown["text_offset"] == [0, 3, 4, 4, 4, 4, 5, 13, 16]
    assert shown["token_logprobs"] == [None, *[-0.5] * 6, -0.25, -0.25]
    first, *others = shown["top_logprobs"]
    assert first is None
    [request] = client.engine.requests[:1]
    assert (request.prompt_logprobs, request.prompt_top_n) == (True, top_n)
    assert request.sampling.top_n == top_n
    for own, value, likely in zip(
        shown["tokens"][1:], shown["token_logprobs"][1:], others, strict=True
    ):
        assert likely[own] == value and len(likely) == max(top_n, 1)


async def test_only_the_prompt(serve: Any) -> None:
    """Nothing is generated, counted or shown."""
    client = await serve()
    body = {"prompt": ["The capital", "hi"], "echo": True, "max_tokens": 0, "logprobs": 1}
    status, answer = await client.post("/v1/completions", body)
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == ["The capital", "hi"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 2
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 4
    assert [len(choice["logprobs"]["tokens"]) for choice in answer["choices"]] == [2, 2]
    assert await streamed(client, body) == answer["choices"]
    assert all(request.max_new_tokens == 0 for request in client.engine.requests)


async def test_token_ids_are_repeated_as_text(serve: Any) -> None:
    """With the names of special tokens, which the prompt may spell out as well."""
    client = await serve()
    script(client, "a</s>")
    ids = client.text.tokenizer.encode("<s>The capital")
    for prompt in (ids, [ids], [ids, client.text.tokenizer.encode("é")]):
        body = {"prompt": prompt, "echo": True, "logprobs": 0, "seed": 0}
        choices = await whole(client, body)
        assert choices == await streamed(client, body)
        assert choices[0]["text"] == "<s>The capitala"
        assert choices[0]["logprobs"]["text_offset"] == [0, 3, 6, 14, 15]
        assert choices[0]["logprobs"]["tokens"][0] == "<s>"
        if len(choices) > 1:
            assert choices[1]["text"] == "éa"


async def test_several_sequences_repeat_one_prompt(serve: Any) -> None:
    client = await serve()
    script(client, " the</s>")
    body = {"prompt": ["hi", "you"], "n": 2, "echo": True, "logprobs": 1, "seed": 0}
    choices = await whole(client, body)
    assert [choice["text"] for choice in choices] == ["hi the", "hi the", "you the", "you the"]
    assert await streamed(client, body) == choices


async def test_a_special_token_in_the_text(serve: Any) -> None:
    """Stands where it is spelled; the one that is put before the text stands at its start."""
    client = await serve()
    body = {"prompt": "a<|im_end|> the", "echo": True, "max_tokens": 0, "logprobs": 0}
    [choice] = await whole(client, body)
    assert choice["text"] == "a<|im_end|> the"
    assert choice["logprobs"]["tokens"] == ["a", "<|im_end|>", " the"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 11]


async def test_as_lm_eval_reads_it(serve: Any) -> None:
    """Its `loglikelihood` takes entries by position: the last one is the generated token's."""
    client = await serve(FakeEngine(script=[2]))  # EOS at once
    contexts, continuations = [[5, 6, 8], [7]], [[10, 11], [12]]
    prompts = [a + b for a, b in zip(contexts, continuations, strict=True)]
    body = {
        "model": "m", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": True,
    }  # fmt: skip
    choices = await whole(client, body)
    for choice, context in zip(sorted(choices, key=itemgetter("index")), contexts, strict=True):
        values = choice["logprobs"]["token_logprobs"][len(context) : -1]
        likely = choice["logprobs"]["top_logprobs"][len(context) : -1]
        assert values == [-0.5] * (2 if len(context) == 3 else 1)
        assert all(value == max(top.values()) for value, top in zip(values, likely, strict=True))


async def test_what_cannot_be_scored(serve: Any) -> None:
    client = await serve()
    for body in ({"prompt": "hi", "max_tokens": 0}, {"prompt": "hi", "max_tokens": -1}):
        status, answer = await client.post("/v1/completions", body)
        assert status == 422 and "`max_tokens`" in answer["error"]["message"]
    assert not client.engine.requests


async def test_a_fault_beside_the_loop_ends_the_request(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says where it was."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("not foreseen")

    client = await serve()
    monkeypatch.setattr(CompletionLogprobs, "add_prompt", fail)
    body = {"prompt": "hi", "echo": True, "logprobs": 1, "max_tokens": 3}
    for stream in (False, True):
        status, answer = await client.post("/v1/completions", body | {"stream": stream})
        assert (status, answer["error_type"]) == (500, "internal")
    await client.quiet()
    faults = [record.exc_text or "" for record in caplog.records if record.msg == "Fault"]
    assert len(faults) == 2 and all("not foreseen" in fault for fault in faults)


async def test_a_text_whose_places_the_tokenizer_cannot_find(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise TokenizerError("the tokenizer failed: it panicked")

    client = await serve()
    monkeypatch.setattr(Tokenizer, "spans", fail)
    status, answer = await client.post("/v1/completions", {"prompt": "hi", "echo": True})
    assert status == 422 and "it panicked" in answer["error"]["message"]
    assert not client.engine.requests
