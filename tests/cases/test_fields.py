"""What clients send, and what they read back when they are refused."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from pydantic import BaseModel, TypeAdapter

from penstock_router.api.errors import ApiError
from penstock_router.api.guard import EXPOSED_HEADERS
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.openai_message import Message
from penstock_router.api.openai_request import StreamOptions
from penstock_router.api.routes import ROUTES
from penstock_router.api.schema import Reading, parse
from penstock_router.api.tgi_schema import GenerateParameters, GenerateRequest, VertexRequest
from penstock_router.request import Sampling
from router.api import conftest as api
from support.fake_engine import FakeEngine

serve, text = api.serve, api.text
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.fixture
def place() -> str:
    """No row of these gets as far as the engine's process."""
    return "beside"


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": HI, "max_tokens": 2, **fields}


def message(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [*HI, {"role": "assistant", "content": "x", **fields}, *HI]}


def completion(**fields: Any) -> tuple[str, dict[str, Any]]:
    return COMPLETIONS, {"prompt": "hi", "max_tokens": 2, **fields}


def generate(**parameters: Any) -> tuple[str, dict[str, Any]]:
    return "/generate", {"inputs": "hi", "parameters": {"max_new_tokens": 2, **parameters}}


async def send(client: Any, path: str, body: Any, **headers: str) -> tuple[int, Any, str | None]:
    """Status, body as text, and the names of ignored fields."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    kind = {"Content-Type": "application/json"}
    async with client.session.post(client.url + path, data=data, headers=kind | headers) as answer:
        return answer.status, await answer.text(), answer.headers.get("x-ignored-fields")


# Row b3 and its neighbours: what is sent, and the names that the answer says were ignored.
TAKEN = {
    "guidellm": (
        completion(stream=True, stream_options={"include_usage": True, "extra": 1}),
        "stream_options.extra",
    ),
    "ignore_eos_token": (generate(ignore_eos_token=True), None),
    "stop_sequences": (generate(stop_sequences=["x"]), None),
    "max_time": (generate(max_time=5.5), None),
    "wait_for_model": (generate(wait_for_model=True), "parameters.wait_for_model"),
    "num_beams": (generate(num_beams=1), None),
    "adapter": (generate(adapter_id=None, grammar=None, watermark=False), None),
    "options": (("/", {"inputs": "hi", "options": {"use_cache": False}}), None),
    "litellm": (chat(max_retries=0), "max_retries"),
    "use_beam_search": (completion(use_beam_search=False, length_penalty=1.0), None),
    "add_generation_prompt": (chat(add_generation_prompt=True), None),
    "skip_special_tokens": (chat(skip_special_tokens=True), None),
    "tool_choice": (chat(tools=[TOOL], tool_choice="none"), None),
    "reasoning": (chat(reasoning_effort="low", verbosity="low"), "verbosity"),
    "watermark": (generate(watermark=True), None),
    "best_of": (completion(best_of=2), None),
    "stop_token_ids": (chat(stop_token_ids=[5]), None),
    "special_tokens": (chat(skip_special_tokens=False), None),
    "huggingface.js": (
        completion(return_full_text=False, max_time=5, stop_sequences=["x"], do_sample=True),
        None,
    ),
    "prediction": (chat(prediction={"type": "content", "content": "x"}), "prediction"),
    "cache_control": (message(cache_control={"type": "ephemeral"}), "messages[].cache_control"),
    "parts": (
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}]),
        "messages[].content[].b",
    ),
    "n": (chat(n=3), None),
    "quiet": (chat(user="u", metadata={"a": "b"}, store=True, service_tier="auto"), None),
    "null": (chat(brand_new=None), None),
    "vertex": (("/vertex", {"instances": [{"inputs": "hi", "x": 1}]}), "x"),
    "invocations": (("/invocations", {"prompt": "hi", "x": 1}), "x"),
    "tokenize": (("/tokenize", {"inputs": "hi", "x": 1}), "x"),
    "chat_tokenize": (("/chat_tokenize", {"messages": HI, "x": 1}), "x"),
    "guideline": (chat(guideline="be nice"), None),
}  # fmt: skip

# The names of fields that are refused, because ignoring them would change the answer.
REFUSED = {
    "chat_template": chat(chat_template="x"),
    "prompt_embeds": completion(prompt_embeds="x"),
    "num_beams": generate(num_beams=2),
    "use_beam_search": completion(use_beam_search=True),
    "response_format": chat(response_format={"type": "json_schema"}),
    "grammar": generate(grammar={"type": "regex", "value": ""}),
    "guided_json": completion(guided_json={}, guided_regex="a"),
    "adapter_id": generate(adapter_id="a"),
    "suffix": completion(suffix="x"),
    "min_tokens": completion(min_tokens=3),
    "num_return_sequences": generate(num_return_sequences=2),
    "add_generation_prompt": chat(add_generation_prompt=True, continue_final_message=True),
    "max_tokens": completion(max_tokens=0),
    "truncate": completion(return_full_text=True, truncate=1),
    "self": chat(chat_template_kwargs={"self": "x"}),  # L1
    "messages.1.content": message(content=None),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_b3_taken(serve: Any, name: str) -> None:
    (path, body), ignored = TAKEN[name]
    client = await serve()
    status, answer, header = await send(client, path, body)
    assert (status, header) == (200, ignored), answer


@pytest.mark.parametrize("place", [0, 1], ids=["b12-first", "b12-later"])
async def test_b12_a_message_without_content(serve: Any, place: int) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}] * place
    client = await serve()
    status, answer, _ = await send(client, CHAT, {"messages": [*messages, {"role": "user"}]})
    assert status == 422 and f"messages.{place}.content`" in answer
    assert not client.engine.jobs


@pytest.mark.parametrize("name", REFUSED)
async def test_b3_refused(serve: Any, name: str) -> None:
    client = await serve()
    status, answer, _ = await send(client, *REFUSED[name])
    assert status == 422 and f"{name}`" in answer
    assert not client.engine.jobs


async def test_b3_strict(serve: Any) -> None:
    """With --strict-requests unknown fields are refused by name; known ones are ignored as ever."""
    client = await serve(strict_requests=True)
    for name, ((path, body), ignored) in TAKEN.items():
        status, answer, header = await send(client, path, body)
        first = (ignored or "").partition(",")[0]
        refused = f"unknown field `{first}`" if first else None
        assert status == (422 if refused else 200), (name, answer)
        assert header is None and (refused is None or refused in answer)


async def test_b3_names_are_bounded_and_printable(
    serve: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    client = await serve()
    hostile = ["a\r\nSet-Cookie: x=1", "é", "x" * 100, "a,b", "\x1b[31m", ""]
    names = [*hostile, *(f"n{i}" for i in range(30))]
    for _ in range(2):
        status, _, header = await send(client, *chat(**dict.fromkeys(names, 1)))
        assert status == 200 and header is not None
        shown = header.split(", ")
        assert len(shown) == 20
        assert shown[:5] == ["a??Set-Cookie:?x=1", "?", "x" * 64, "a?b", "?[31m"]
    assert "Set-Cookie" not in (await client.session.get(client.url + "/health")).headers
    # An error says it too, and so does a stream.
    status, _, header = await send(client, *chat(top_p=0, brand_new=1))
    assert (status, header) == (422, "brand_new")
    status, _, header = await send(client, *chat(stream=True, brand_new=1))
    assert (status, header) == (200, "brand_new")


async def test_b3_a_name_is_logged_once(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = await serve()
    with caplog.at_level("INFO"):
        for index in range(120):
            await send(client, *chat(brand_new=1, **{f"n{index}_{i}": 1 for i in range(15)}))
    lines = [r.getMessage() for r in caplog.records if "unknown and ignored" in r.getMessage()]
    assert sum(line.endswith(": brand_new") for line in lines) == 1
    assert len(lines) == len(set(lines)) == 1024


async def test_b3_what_is_honoured(serve: Any) -> None:
    client = await serve()
    await send(client, *generate(ignore_eos_token=True))
    assert client.engine.requests[-1].ignore_eos
    options = parse(
        GenerateRequest,
        {"inputs": "x", "parameters": {"stop": ["a"], "stop_sequences": ["b"], "max_time": 2}},
    ).parameters.options(api.CONFIG, stream=False, priority=0)
    assert options.stop == ("a", "b") and options.max_time == 2.0
    body = {"prompt": "x", "stop": "a", "stop_sequences": ["b"], "max_time": 2, "truncate": 3}
    options = parse(CompletionRequest, body).options(api.CONFIG, priority=0)
    assert (options.stop, options.max_time, options.truncate) == (("a", "b"), 2.0, 3)
    assert options.sampling.temperature == 1.0
    options = parse(CompletionRequest, {**body, "do_sample": False}).options(api.CONFIG, priority=0)
    assert options.sampling.temperature == 0.0
    client.engine.script = client.text.tokenizer.encode("The capital of France</s>")
    _, answer, _ = await send(
        client, *completion(max_tokens=9, stop=" of", include_stop_str_in_output=True)
    )
    assert json.loads(answer)["choices"][0]["text"] == "The capital of"
    assert parse(CompletionRequest, {"prompt": "x", "return_full_text": True, "max_tokens": 0}).echo


async def test_b3_an_object_has_at_most_256_keys(serve: Any) -> None:
    client = await serve()
    filler = {f"k{i}": 1 for i in range(255)}
    part = {"type": "text", "text": "a"}
    for body in ({"messages": HI}, {"messages": [{"role": "user", "content": [part]}]}):
        assert (await send(client, CHAT, {**body, **filler}))[0] == 200
        status, answer, _ = await send(client, CHAT, {**body, **filler, "one more": 1})
        assert status == 422 and "at most 256 fields. Given: 257" in answer
    for nested in ({**HI[0], **filler}, {"role": "user", "content": [{**part, **filler}]}):
        status, answer, _ = await send(client, CHAT, {"messages": [nested]})
        assert status == 422 and "at most 256 fields. Given: 257" in answer


# Row C1: bodies of 2 MB that hold as many items as fit, of every wrong kind, in every place.
ITEMS = ["[]", "{}", '""', "1.5", "true", "null", "[0]", "-1", "4294967296", '"x"', '{"a":1}']
MESSAGES = '"messages":[{"role":"user","content":"hi"}]'
PLACES: dict[str, tuple[str, type[BaseModel], str]] = {
    "prompt": (COMPLETIONS, CompletionRequest, '{"prompt":[%s]}'),
    "nested prompt": (COMPLETIONS, CompletionRequest, '{"prompt":[[5],[%s]]}'),
    "messages": (CHAT, ChatRequest, '{"messages":[%s]}'),
    "content": (CHAT, ChatRequest, '{"messages":[{"role":"user","content":[%s]}]}'),
    "stop": (CHAT, ChatRequest, "{" + MESSAGES + ',"stop":[%s]}'),
    "logit_bias": (CHAT, ChatRequest, "{" + MESSAGES + ',"logit_bias":[%s]}'),
    "kwargs": (CHAT, ChatRequest, "{" + MESSAGES + ',"chat_template_kwargs":{"a":[%s]}}'),
    "parameters": ("/generate", GenerateRequest, '{"inputs":"x","parameters":[%s]}'),
    "stop_sequences": (
        "/generate",
        GenerateRequest,
        '{"inputs":"x","parameters":{"stop_sequences":[%s]}}',
    ),
    "instances": ("/vertex", VertexRequest, '{"instances":[%s]}'),
}
BYTES = 1_980_000
KEYS = "{" + ",".join(f'"{i}":"x"' for i in range(150_000)) + "}"
PART = '{"type":"text","text":"a"}'
PARTS = f'{{"role":"user","content":[{",".join([PART] * 1000)}]}}'
MESSAGE = orjson.dumps({"role": "user", "content": "x"} | {f"k{i}": 1 for i in range(45)}).decode()
LONG = {
    "keys": (CHAT, ChatRequest, KEYS),
    "keys of parameters": ("/generate", GenerateRequest, f'{{"inputs":"x","parameters":{KEYS}}}'),
    "keys of a message": (CHAT, ChatRequest, f'{{"messages":[{KEYS}]}}'),
    "keys of a part": (
        CHAT,
        ChatRequest,
        f'{{"messages":[{{"role":"user","content":[{KEYS}]}}]}}',
    ),
    "keys of stream_options": (
        CHAT,
        ChatRequest,
        f'{{{MESSAGES},"stream":true,"stream_options":{KEYS}}}',
    ),
    "keys of kwargs": (CHAT, ChatRequest, f'{{{MESSAGES},"chat_template_kwargs":{KEYS}}}'),
    "keys of logit_bias": (CHAT, ChatRequest, f'{{{MESSAGES},"logit_bias":{KEYS}}}'),
    "a long stop": (CHAT, ChatRequest, f'{{{MESSAGES},"stop":"{"x" * BYTES}"}}'),
    "deep kwargs": (
        CHAT,
        ChatRequest,
        f'{{{MESSAGES},"chat_template_kwargs":{{"a":{"[" * 1000}{"]" * 1000}}}}}',
    ),
    "many parts": (CHAT, ChatRequest, f'{{"messages":[{",".join([PARTS] * 70)}]}}'),
    "many keys": (CHAT, ChatRequest, f'{{"messages":[{",".join([MESSAGE] * 4000)}]}}'),
}


@pytest.fixture
def quiet() -> Iterator[None]:
    """The server's heap is frozen; that of the tests is not, and a parse would walk it."""
    gc.disable()
    yield
    gc.enable()


def full(pattern: str, item: str, size: int) -> str:
    return pattern % ",".join([item] * (size // (len(item) + 1)))


def costs(model: type[BaseModel], body: str) -> tuple[float, float, str]:
    """CPU seconds of parsing JSON and of validation, the best of three, and the sentence."""
    tries = []
    for _ in range(3):
        start = time.thread_time()
        value = orjson.loads(body)
        parsed = time.thread_time()
        sentence = ""
        try:
            parse(model, value, Reading())
        except ApiError as error:
            assert error.row.status == 422
            sentence = str(error)
        tries.append((parsed - start, time.thread_time() - parsed, sentence))
    return min(t[0] for t in tries), min(t[1] for t in tries), tries[0][2]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("place_", PLACES)
def test_C1_validation_costs_no_more_than_the_parse(place_: str) -> None:
    _, model, pattern = PLACES[place_]
    for item in ITEMS:
        parsing, validation, sentence = costs(model, full(pattern, item, BYTES // 4))
        assert validation < 20 * parsing + 0.001, (item, sentence)
        # Integers of any size are ids, which only the model's vocabulary refuses.
        assert sentence or ("prompt" in place_ and item in ("-1", "4294967296")), item
        assert len(sentence) < 500


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", LONG)
def test_C1_long_objects(name: str) -> None:
    _, model, body = LONG[name]
    parsing, validation, sentence = costs(model, body)
    # A text is parsed at the speed of memory, so the last two bounds are those of a list of items.
    assert validation < 20 * parsing + 0.02 and 0 < len(sentence) < 500


def lists(schema: Any) -> Iterator[dict[str, Any]]:
    """Every list and mapping in a schema of pydantic's core, but those that code of ours checks."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "dict"):
            yield schema
        for name, value in schema.items():
            if name not in ("metadata", "serialization"):
                yield from lists(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from lists(value)


def test_C1_every_list_of_every_schema_is_bounded() -> None:
    """New fields fail here until their lists have a bound and fail at their first wrong item."""
    seen = 0
    for model in {route.body for route in ROUTES if route.body is not None}:
        for schema in lists(TypeAdapter(model).core_schema):
            seen += 1
            if schema["type"] == "list":
                assert schema.get("fail_fast") and schema.get("max_length"), (model, schema)
            else:  # values are taken as they are, so nothing of them can be an error
                assert schema["values_schema"]["type"] == "any", (model, schema)
    assert seen > 5


@pytest.mark.usefixtures("quiet")
async def test_C1_four_at_once(serve: Any) -> None:
    """Through the server: all are refused, and it goes on."""
    client = await serve(payload_limit=2_000_000)
    jobs = []
    for path, _, pattern in PLACES.values():
        jobs += [(path, full(pattern, "[]", BYTES).encode())]
    jobs += [(path, body.encode()) for path, _, body in LONG.values()]
    for start in range(0, len(jobs), 4):
        answers = await asyncio.gather(*(send(client, *job) for job in jobs[start : start + 4]))
        assert [status for status, *_ in answers] == [422] * len(answers)
        assert all(len(answer) < 1000 for _, answer, _ in answers)
    assert (await send(client, *chat()))[0] == 200
    assert len(client.engine.jobs) == 1


async def test_b2_which_shape_an_error_has(serve: Any) -> None:
    """An object for OpenAI's clients; the sentence for huggingface_hub, which breaks on one."""
    client = await serve()
    for agent, kind in [
        ("unknown/None; hf_hub/0.23.5; python/3.11.7", str),
        ("unknown/None; hf_hub/1.33.0; python/3.11.7; torch/2.13.0", str),
        ("OpenAI/Python 3.52.0", dict),
        ("python-requests/2.34.2", dict),
        ("", dict),
    ]:
        _, body, _ = await send(client, *chat(top_p=0), **{"User-Agent": agent})
        answer = json.loads(body)
        assert isinstance(answer["error"], kind) and answer["error_type"] == "validation"
        _, body, _ = await send(client, *generate(top_p=0), **{"User-Agent": agent})
        assert isinstance(json.loads(body)["error"], str)


async def test_b2_old_clients_read_a_stream_to_its_end(serve: Any) -> None:
    """Those that parse every event as JSON get nothing that is none."""
    client = await serve()
    for agent, ends in [
        ("unknown/None; hf_hub/0.23.5; python/3.11.7", False),
        ("unknown/None; hf_hub/0.9.0; python/3.11.7", False),
        ("unknown/None; hf_hub/0.24.0; python/3.11.7", False),
        ("unknown/None; hf_hub/0.25.0; python/3.11.7", True),
        ("unknown/None; hf_hub/0.30.1; python/3.11.7", True),
        ("unknown/None; hf_hub/1.2.3; python/3.11.7", True),
        ("python-requests/2.34.2", False),
        ("OpenAI/Python 3.52.0", True),
    ]:
        for path, body in (chat(stream=True), completion(stream=True)):
            _, text, _ = await send(client, path, body, **{"User-Agent": agent})
            assert text.endswith("data: [DONE]\n\n") is ends, agent
            assert text.count('finish_reason":"length') == 1
            typed = path == CHAT and agent.startswith("python-requests/")
            assert text.count('"tool_calls":null') == (text.count("finish_reason") if typed else 0)


async def test_b2_clients_read_the_sentence(serve: Any) -> None:
    client = await serve()
    hub = InferenceClient(client.url)

    def talk() -> None:
        for stream in (False, True):
            with pytest.raises(HfHubHTTPError, match="`top_p` must be > 0.0") as caught:
                list(hub.chat_completion(HI, top_p=0, stream=stream))  # type: ignore[arg-type]
            assert "{'message'" not in str(caught.value)

    await asyncio.to_thread(talk)
    async with openai.AsyncOpenAI(base_url=client.url + "/v1", api_key="x", max_retries=0) as sdk:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await sdk.chat.completions.create(model="m", messages=HI, top_p=0)  # type: ignore[arg-type]
        assert caught.value.body["message"].startswith("Input validation error: `top_p` must")


# Row b10: what is sent, and what the sentence must say.
TOO_LONG = {
    "messages": (chat(messages=[{"role": "user", "content": "h" * 80}]), "`messages` must have"),
    "prompt": (completion(prompt="h" * 80), "`prompt` must have less than 64 tokens. Given: 80"),
    "ids": (completion(prompt=[5] * 80), "`prompt` must have less than 64 tokens. Given: 80"),
    "max_tokens": (completion(max_tokens=95), "`prompt` tokens + `max_tokens` must be <= 96"),
    "chat max_tokens": (chat(max_tokens=95), "`messages` tokens + `max_tokens` must be <= 96"),
    "max_completion_tokens": (
        chat(max_completion_tokens=95),
        "`messages` tokens + `max_completion_tokens` must be <= 96",
    ),
}


@pytest.mark.parametrize("name", TOO_LONG)
async def test_b10_too_long(serve: Any, name: str) -> None:
    client = await serve()
    (path, body), sentence = TOO_LONG[name]
    status, answer, _ = await send(client, path, body)
    error = json.loads(answer)["error"]
    assert status == 422 and error["code"] == "context_length_exceeded"
    assert sentence in error["message"]
    assert "This model's maximum context length is 96 tokens" in error["message"]
    assert "`--max-" in error["message"]


async def test_b10_sentences_of_tgi_stay(serve: Any) -> None:
    client = await serve()
    _, answer, _ = await send(client, *generate(max_new_tokens=95))
    assert json.loads(answer) == {
        "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 96. "
        "Given: 2 `inputs` tokens and 95 `max_new_tokens`",
        "error_type": "validation",
    }


# Rows b7, b8 and W17: what /v1 takes, whatever TGI's limits are; and the sentence of a refusal.
LIMITS: dict[str, tuple[tuple[str, dict[str, Any]], str | None]] = {
    "b7-20": (chat(logprobs=True, top_logprobs=20), None),
    "b7-21": (chat(logprobs=True, top_logprobs=21), "`top_logprobs`: input should be less than"),
    "b7-completions": (completion(logprobs=20), None),
    "b7-tgi": (generate(details=True, top_n_tokens=6), "`top_n_tokens` must be >= 0 and <= 5"),
    "b7-stop": (chat(stop=["x"] * 16), None),
    "b7-stop-17": (chat(stop=["x"] * 17), "`--max-stop-sequences` raises the limit"),
    "b7-stop-tgi": (generate(stop=["x"] * 5), "`stop` supports up to 4 stop sequences"),
    "b8-6": (completion(prompt=["a"] * 6), None),
    "b8-128": (completion(prompt=["a"] * 128), None),
    "b8-129": (completion(prompt=["a"] * 129), "maximum allowed batch size of 128. Given: 129"),
    "b8-n": (chat(n=128), None),
    "b8-n-129": (chat(n=129), "`n`: input should be less than or equal to 128"),
    "b8-tgi": (generate(best_of=3, do_sample=True), "`best_of` must be > 0 and <= 2"),
    "b8-vertex": (
        ("/vertex", {"instances": [{"inputs": "a"}] * 5}),
        "maximum allowed batch size of 4",
    ),
    "W17-prompts": (completion(prompt=["a"] * 5, n=30), "150 sequences"),
    "W17-n": (chat(n=100), None),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_limits(serve: Any, name: str) -> None:
    (path, body), sentence = LIMITS[name]
    client = await serve(FakeEngine(tokens_per_turn=9), max_concurrent_requests=128)
    status, answer, _ = await send(client, path, body)
    assert status == (200 if sentence is None else 422), answer
    assert sentence is None or sentence in answer


async def test_W17_what_can_never_be_admitted(serve: Any) -> None:
    """422, and nothing stays taken; what only cannot be now is 429."""
    client = await serve(FakeEngine(hold=True), max_concurrent_requests=2)
    for path, body in (completion(prompt=["a"] * 3), chat(n=3), chat(n=3, stream=True)):
        status, answer, _ = await send(client, path, body)
        assert status == 422 and "`--max-concurrent-requests`" in answer
    running = asyncio.create_task(send(client, *chat(n=2)))
    while len(client.engine.jobs) < 2:
        await asyncio.sleep(0.01)
    assert (await send(client, *chat()))[0] == 429
    client.engine.release()
    assert (await running)[0] == 200
    assert (await send(client, *generate(best_of=2, do_sample=True)))[0] == 200


async def test_b5_pages_may_send_what_sdks_add(serve: Any) -> None:
    client = await serve()
    wanted = "authorization,content-type,x-stainless-os,traceparent,openai-organization"
    headers = {
        "Origin": "http://page",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": wanted,
    }
    async with client.session.options(client.url + CHAT, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Headers"] == wanted
    headers["Access-Control-Request-Headers"] = 'x";<script>'
    async with client.session.options(client.url + CHAT, headers=headers) as answer:
        assert "script" not in answer.headers["Access-Control-Allow-Headers"]
    path, body = generate(brand_new=1)
    async with client.session.post(client.url + path, json=body) as answer:
        ours = {name.lower() for name in answer.headers if name.lower().startswith("x-")}
        exposed = answer.headers["Access-Control-Expose-Headers"].split(",")
        assert {"x-request-id", "x-ignored-fields", "x-total-time"} <= ours <= set(exposed)
    assert exposed == EXPOSED_HEADERS.split(",")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_b9_names_of_the_model(serve: Any, path: str) -> None:
    client = await serve(served_model_name=("x", "y"))
    body = chat()[1] if path == CHAT else completion()[1]
    for name in ("x", "y", "tgi", "dummy", "default", "some/model", client.url, client.url + "/v1"):
        status, answer, _ = await send(client, path, {**body, "model": name})
        assert (status, json.loads(answer)["model"]) == (200, "x"), name
    for name in ("z", "gpt-4", "some/mode", "", "X"):
        status, answer, _ = await send(client, path, {**body, "model": name})
        assert status == 404 and json.loads(answer)["error"]["code"] == "model_not_found"
        assert "there is `x`, `y`" in answer
    models = json.loads((await client.get("/v1/models"))[1])["data"]
    assert [model["id"] for model in models] == ["x", "y"]
    assert [(await client.get(f"/v1/models/{name}"))[0] for name in "xyz"] == [200, 200, 404]


# What TGI's own OpenAPI document has in its requests.
TGI_FIELDS: dict[type[BaseModel], str] = {
    GenerateRequest: "inputs parameters stream",
    GenerateParameters: "adapter_id best_of decoder_input_details details do_sample "
    "frequency_penalty grammar max_new_tokens repetition_penalty return_full_text seed stop "
    "temperature top_k top_n_tokens top_p truncate typical_p watermark",
    ChatRequest: "frequency_penalty guideline logit_bias logprobs max_tokens messages model n "
    "presence_penalty response_format seed stop stream stream_options temperature tool_choice "
    "tool_prompt tools top_logprobs top_p",
    CompletionRequest: "frequency_penalty max_tokens model prompt repetition_penalty seed stop "
    "stream suffix temperature top_p",
    Message: "content name role",
    StreamOptions: "include_usage",
}
TGI_ROUTES = (
    "POST / /chat_tokenize /generate /generate_stream /invocations /tokenize "
    "/v1/chat/completions /v1/completions",
    "GET / /health /info /metrics /v1/models",
)


def test_L9_no_field_or_route_of_tgi_is_unknown() -> None:
    for model, names in TGI_FIELDS.items():
        known = {*model.model_fields, *model.IGNORED, *model.UNSUPPORTED}  # type: ignore[attr-defined]
        assert set(names.split()) <= known
    routes = {(route.method, route.path) for route in ROUTES}
    for line in TGI_ROUTES:
        method, *paths = line.split()
        assert {(method, path) for path in paths} <= routes


@pytest.mark.parametrize("key", [None, "secret"])
async def test_L9_statuses_and_kinds_are_those_of_the_document(serve: Any, key: str | None) -> None:
    client = await serve(api_key=(key,) if key else (), max_concurrent_requests=128)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    _, text = await client.get("/openapi.json", headers=headers)
    paths = json.loads(text)["paths"]
    bodies = [*(body for body, _ in TAKEN.values()), *REFUSED.values()]
    bodies += [*(body for body, _ in TOO_LONG.values()), *(body for body, _ in LIMITS.values())]
    bodies += [generate(), ("/generate", {"inputs": "x", "stream": True}), ("/vertex", b"{")]
    bodies += [("/generate_stream", {"inputs": "x"}), ("/", {"inputs": "x", "stream": True})]
    seen = set()
    for path, body in bodies:
        documented = paths[path]["post"]["responses"]
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        for kind, authorization in (("application/json", headers), ("text/plain", headers)):
            sent = {"Content-Type": kind, **authorization}
            async with client.session.post(client.url + path, data=data, headers=sent) as answer:
                assert str(answer.status) in documented, (path, answer.status)
                assert answer.content_type in documented[str(answer.status)]["content"]
                seen.add(answer.status)
    for path in paths:
        if "get" in paths[path]:
            url = client.url + path.replace("{id}", "x")
            async with client.session.get(url, headers=headers) as answer:
                documented = paths[path]["get"]["responses"][str(answer.status)]
                assert not documented["content"] or answer.content_type in documented["content"]
                seen.add(answer.status)
            async with client.session.get(url) as answer:
                assert str(answer.status) in paths[path]["get"]["responses"]
                seen.add(answer.status)
    assert seen == {200, 400, 404, 415, 422} | ({401} if key else set())


def test_shards_are_warmed_up_for_what_v1_takes() -> None:
    """The largest top_n of any route is one that the shards have room for."""
    import dataclasses

    from penstock_proto.shard_pb2 import InfoResponse
    from penstock_router.limits import MAX_TOP_LOGPROBS, warmup_request

    info = InfoResponse(max_position_embeddings=96, device="cpu")
    for most in (0, 5, 50):
        config = dataclasses.replace(api.CONFIG, max_top_n_tokens=most)
        assert warmup_request(config, [info]).max_top_n == max(most, MAX_TOP_LOGPROBS)
    assert Sampling(top_n=MAX_TOP_LOGPROBS).top_n == 20
