"""Every value that a client can send is taken in range or refused with a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.api import options
from penstock_router.api.anthropic_schema import ContentBlock, CountRequest, MessagesRequest
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.openai_message import Message
from penstock_router.api.responses_schema import InputItem, ResponsesRequest
from penstock_router.api.tgi_schema import GenerateParameters, GenerateRequest
from router.api.conftest import beside_only
from support.fake_engine import FakeEngine

HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}
HOSTILE = [
    "0", "-1", "1", "0.5", "1.0", "-0.0", "1e-300", "2147483647", "2147483648",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "1e308", "-1e308", "1e999", "NaN", "Infinity", "-Infinity",
    '"1"', '""', '"x"', "true", "false", "null", "[]", "[1]", "[[[[[[]]]]]]", "{}", '{"5": 1}',
    '{"-1": 1}', '{"9999999999": 1}', '{"5": 1e308}', '{"a": {"b": [null]}}', '"\\ud800"',
]  # fmt: skip


def targets() -> list[tuple[str, str, str]]:
    """Route, body with a hole, name of the field that the hole is."""
    found = []

    def add(route: str, name: str, before: str, after: str) -> None:
        found.append((route, f'{{{before}"{name}":HOLE{after}}}', name))

    user = '"role":"user","content":"hi"'
    for name in GenerateParameters.model_fields:
        for route in ("/generate", "/generate_stream"):
            add(route, name, '"inputs":"hi","parameters":{', "}")
    for name in ChatRequest.model_fields:
        add("/v1/chat/completions", name, f'"messages":[{{{user}}}],', "")
    for name in CompletionRequest.model_fields:
        add("/v1/completions", name, '"prompt":"hi",', "")
    for name in ResponsesRequest.model_fields:
        add("/v1/responses", name, '"input":"hi",', "")
    for name in MessagesRequest.model_fields:
        add("/v1/messages", name, f'"max_tokens":5,"messages":[{{{user}}}],', "")
    for name in CountRequest.model_fields:
        add("/v1/messages/count_tokens", name, f'"messages":[{{{user}}}],', "")
    for name in InputItem.model_fields:
        add("/v1/responses", name, '"input":[{"role":"user","content":"hi",', "}]")
    for name in ContentBlock.model_fields:
        add(
            "/v1/messages",
            name,
            '"max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":"hi",',
            "}]}]",
        )
    for name in Message.model_fields:
        add("/v1/chat/completions", name, f'"messages":[{{{user},', "}]")
    for name in GenerateRequest.model_fields:
        for route in ("/", "/tokenize"):
            add(route, name, '"inputs":"hi",', "")
    found.append(("/vertex", '{"instances":[HOLE]}', "instances"))
    found.append(("/vertex", '{"instances":HOLE}', "instances"))
    return found


async def send(client: Any, route: str, body: str) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    async with client.session.post(client.url + route, data=body, headers=headers) as response:
        return response.status, await response.text()


async def test_every_field_with_every_value(serve: Any) -> None:
    """The fake engine asserts its ranges, so a value that slips through is a 500."""
    client = await serve(FakeEngine(tokens_per_turn=100))
    taken: dict[str, int] = {}
    for route, body, name in targets():
        for value in HOSTILE:
            status, answer = await send(client, route, body.replace("HOLE", value))
            late = name == "timeout" and status == 504  # 1e-300 s are a time, and soon over
            assert late or status in (200, 400, 404, 422), (route, name, value, answer)
            taken[name] = taken.get(name, 0) + (status == 200)
            if status == 422:
                error = json.loads(answer)["error"]
                sentence = error if isinstance(error, str) else error["message"]
                assert "validation" in answer and sentence, (route, name, value, answer)
    nothing = {name for name, count in taken.items() if not count}
    assert nothing == {"messages", "instances"}, "fields that take none of the values"
    await client.quiet()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(GenerateParameters.model_fields)),
    value=st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
)
def test_any_number(name: str, value: Any) -> None:
    """The schema alone: a value is refused, or is what was sent."""
    from penstock_router.api.errors import ApiError
    from penstock_router.api.schema import parse

    try:
        parsed = parse(GenerateParameters, {name: value})
    except ApiError as error:
        assert error.row.status == 422
        assert name in str(error)
        return
    assert getattr(parsed, name) == value
    assert len(value) <= 1024 if isinstance(value, str) else abs(value) <= 2**64


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        (
            {"temperature": 1e308},
            "`temperature`: input should be less than or equal to 100. Given: 1e+308",
        ),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive, >= 0.01"),
        ({"frequency_penalty": -2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"top_p": 0.0}, "`top_p` must be > 0.0 and <= 1.0"),
        ({"typical_p": -1}, "`typical_p` must be > 0.0 and <= 1.0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"max_new_tokens": 1.5}, "`max_new_tokens`: input should be a valid integer. Given: 1.5"),
        (
            {"do_sample": "yes"},
            "`do_sample`: input should be a valid boolean. Given: a string of 3 characters",
        ),
        ({"stop": ["x"] * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 64. Given: 0"),
        ({"truncate": 65}, "`truncate` must be strictly positive and less than 64. Given: 65"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"top_n_tokens": 6, "details": True}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 0}, "`best_of` must be > 0 and <= 2. Given: 0"),
        ({"logit_bias": {"700": 1}}, "`logit_bias` must hold token ids >= 0 and < 700. Given: 700"),
        ({"grammar": {"type": "regex", "value": ""}}, "`grammar` must be a regular expression"),
        ({"adapter_id": "a"}, "`adapter_id` is not supported by this server"),
        ({"num_beams": 2}, "`parameters.num_beams` is not supported by this server"),
        ({"max_time": 0}, "`max_time` must be strictly positive"),
        ({"stop_sequences": [""]}, "`stop_sequences.0`: string should have at least 1 character"),
    ],
)
@beside_only
async def test_sentences(serve: Any, parameters: dict[str, Any], sentence: str) -> None:
    client = await serve()
    for route in ("/generate", "/"):
        status, body = await client.post(route, {"inputs": "hi", "parameters": parameters})
        assert status == 422
        assert body["error_type"] == "validation"
        shown = body["error"].replace("`parameters.", "`")
        assert shown.startswith("Input validation error: " + sentence.replace("`parameters.", "`"))
    assert not client.engine.jobs
    assert await client.count('tgi_request_failure{err="validation"}') == 2


@beside_only
async def test_streams_refuse_with_their_own_status(serve: Any) -> None:
    client = await serve()
    for parameters, sentence in [
        (
            {"best_of": 2, "do_sample": True},
            "`best_of` != 1 is not supported when streaming tokens",
        ),
        (
            {"decoder_input_details": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
    ]:
        status, body = await client.post(
            "/generate_stream", {"inputs": "hi", "parameters": parameters}
        )
        assert (status, body["error"]) == (422, "Input validation error: " + sentence)
    assert (await client.post("/generate_stream", {"inputs": "h" * 65}))[0] == 422


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "missing field `inputs`"),
        ({"inputs": None}, "missing field `inputs`"),
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"inputs": "h" * 65}, "`inputs` must have less than 64 tokens. Given: 65"),
        ({"inputs": "\ud800"}, "not valid JSON"),
        ({"inputs": ["hi"]}, "`inputs`: input should be a valid string. Given: a list of 1 items"),
    ],
)
@beside_only
async def test_inputs(serve: Any, body: dict[str, Any], sentence: str) -> None:
    client = await serve()
    data = json.dumps(body)
    status, answer = await send(client, "/generate", data)
    assert status in (400, 422) and sentence in answer


@pytest.mark.parametrize(
    "extra",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"service_tier": "auto"},
        {"parallel_tool_calls": True},
        {"tools": []},
        {"tools": None},
        {"tool_choice": "none"},
        {"tool_prompt": "x"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"chat_template_kwargs": {"enable_thinking": False, "a": [{"b": 1}]}},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
async def test_harmless_extras(serve: Any, extra: dict[str, Any]) -> None:
    client = await serve()
    status, _ = await client.stream("/v1/chat/completions", {"messages": HI, **extra})
    assert status == 200


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"tools": [{"type": "function"}]}, "missing field `tools.0.function`"),
        ({"tool_choice": "required"}, "`tool_choice` requires a call, so `tools` cannot be empty"),
        ({"response_format": {"type": "xml"}}, "`response_format.type`"),
        ({"stream_options": {"include_usage": True}}, "only allowed when `stream` is true"),
        ({"top_logprobs": 1}, "`logprobs` must be true"),
        ({"n": 129}, "`n`: input should be less than or equal to 128. Given: 129"),
        ({"n": 17}, "asks for 17 sequences, and the server takes at most 16 at a time"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [{"role": "a\nb", "content": "x"}]}, "`messages.0.role`"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "reads no images"),
        ({"chat_template": "x"}, "`chat_template` is not supported"),
        ({"chat_template_kwargs": {"messages": []}}, "must not set `messages`"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "must not set special tokens"),
        ({"chat_template_kwargs": {"a": [0] * 200}}, "at most 128 values"),
        ({"chat_template_kwargs": {"a b": 1}}, "names that a template can use"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "must not both be true"),
        ({"chat_template_kwargs": {"range": "x"}}, "must not set `range`"),
    ],
)  # fmt: skip
@beside_only
async def test_chat_refusals(serve: Any, extra: dict[str, Any], sentence: str) -> None:
    client = await serve()
    status, body = await client.post("/v1/chat/completions", {"messages": HI, **extra})
    assert status == 422 and sentence in body["error"]["message"]
    assert not client.engine.jobs


@beside_only
async def test_deep_template_variables(serve: Any) -> None:
    client = await serve()
    deep: Any = 1
    for _ in range(17):
        deep = [deep]
    body = {"messages": HI, "chat_template_kwargs": {"a": deep}}
    status, answer = await client.post("/v1/chat/completions", body)
    assert status == 422 and "16 levels deep" in answer["error"]["message"]
    for wide in ({"a": [0] * 128}, {"a": [[0] * 64, [0] * 64]}):
        body = {"messages": HI, "chat_template_kwargs": wide}
        status, answer = await client.post("/v1/chat/completions", body)
        assert status == 422 and "at most 128 values" in answer["error"]["message"]


async def test_completion_refusals(serve: Any) -> None:
    client = await serve()
    for extra, sentence in (
        ({"suffix": "x"}, "`suffix` must be empty"),
        ({"best_of": 2, "n": 3}, "`best_of` must be at least `n`, 3. Given: 2"),
        ({"best_of": 2, "stream": True}, "`best_of` must not be greater than `n`"),
        ({"echo": True, "truncate_prompt_tokens": 2}, "must not be given with `echo`"),
        ({"prompt_logprobs": 1, "stream": True}, "must not be given when `stream` is true"),
        ({"stop_token_ids": [700]}, "`stop_token_ids` must hold token ids >= 0 and < 700"),
        ({"stop_token_ids": [2**32]}, "`stop_token_ids` must be a list of 0 to 1024 token ids"),
        ({"allowed_token_ids": []}, "`allowed_token_ids` must be a list of 1 to 32768 token ids"),
        ({"allowed_token_ids": [True]}, "`allowed_token_ids` must be a list of"),
        ({"min_tokens": 9, "max_tokens": 8}, "`min_tokens` must be at most the number of new"),
        ({"min_tokens": 1, "allowed_token_ids": [2]}, "a token that `min_tokens` does not bar"),
        ({"bad_words": ["x" * 100]}, "each of `bad_words` must come to 1 to 16 tokens"),
    ):
        status, body = await client.post("/v1/completions", {"prompt": "hi", **extra})
        assert status == 422 and sentence in body["error"]["message"], (extra, body)
    for extra in ({"suffix": ""}, {"echo": False}, {"best_of": 1}):
        assert (await client.post("/v1/completions", {"prompt": "hi", **extra}))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("POST", "/v1/embeddings", "turns no text into vectors"),
        ("POST", "/v1/audio/transcriptions", "no sound"),
        ("POST", "/v1/rerank", "ranks and classifies no texts"),
        ("GET", "/v1/responses/resp_1", "keeps nothing of what it answered"),
        ("POST", "/v1/messages/batches", "runs no jobs"),
        ("GET", "/nothing", "There is no such path"),
        ("GET", "/v1/models/unknown", "`unknown` does not exist"),
    ],
)
@beside_only
async def test_what_is_not_served(serve: Any, method: str, path: str, reason: str) -> None:
    client = await serve()
    async with client.session.request(method, client.url + path, json={}) as response:
        assert response.status == 404 and reason in await response.text()
    document = json.loads((await client.get("/openapi.json"))[1])
    assert path not in document["paths"]


@contextlib.asynccontextmanager
async def nobody_asks() -> AsyncIterator[list[str]]:
    """Ways to write the address of a listener to which nobody connects meanwhile."""
    hits = []

    async def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(1)
        writer.close()

    listener = await asyncio.start_server(seen, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    hosts = ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "a@127.0.0.1")
    yield [f"http://{host}:{port}/x.png" for host in hosts]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.read()  # whoever came before was seen before
    writer.close()
    listener.close()
    assert len(hits) == 1


async def test_images_are_not_fetched(serve: Any) -> None:
    """Markdown images, which TGI fetches from any prompt, are text."""
    client = await serve()
    async with nobody_asks() as urls:
        for url in urls:
            assert (await client.post("/generate", {"inputs": f"![]({url})"}))[0] == 200


async def test_parts_with_urls_are_refused(serve: Any) -> None:
    client = await serve()
    async with nobody_asks() as urls:
        for url in (*urls, "file:///etc/passwd", "data:image/png;base64,AAAA"):
            part = {"type": "image_url", "text": "x", "image_url": {"url": url}}
            body = {"messages": [{"role": "user", "content": [part]}]}
            status, answer = await client.post("/v1/chat/completions", body)
            assert status == 422 and "reads no images" in json.dumps(answer)
            status, _ = await client.post("/generate", {"text": "x", "image_data": url})
            assert status == 422


@beside_only
async def test_values_are_not_shown(serve: Any) -> None:
    """A refused value may be somebody's prompt: logs and proxies must not get it."""
    client = await serve()
    canary = "the secret canary prompt"
    for body in (
        {"inputs": [canary]},
        {"inputs": canary * 20},
        {"inputs": canary, "parameters": {"temperature": canary}},
        {"inputs": canary, "parameters": {"stop": [{"a": canary}]}},
    ):
        status, answer = await client.post("/generate", body)
        assert status == 422 and "canary" not in json.dumps(answer)
    for body in ({"prompt": {"a": canary}}, {"messages": canary}, {"prompt": canary, "stop": 5}):
        route = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        status, answer = await client.post(route, body)
        assert status == 422 and "canary" not in json.dumps(answer)


@beside_only
@pytest.mark.parametrize(
    ("field", "value", "most"),
    [
        ("bad_words", ["ab"] * 4, 32),
        ("logit_bias", {str(token): 1 for token in range(5, 9)}, 32),
        ("allowed_token_ids", [5, 6, 7, 8], 32),
    ],
)
async def test_what_every_sequence_brings_along(
    serve: Any, monkeypatch: pytest.MonkeyPatch, field: str, value: Any, most: int
) -> None:
    monkeypatch.setitem(options.MOST_TOGETHER, field, most)
    client = await serve()
    body = {"prompt": ["hi", "ho"], "max_tokens": 1, field: value}
    status, answer = await client.post("/v1/completions", {**body, "n": 4})
    assert status == 200, answer
    status, answer = await client.post("/v1/completions", {**body, "n": 5})
    assert status == 422 and "Given: 4 for each of 10" in str(answer)
