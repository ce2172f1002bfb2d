"""What answers say of tokens: their texts, bytes, places and log-probabilities, streamed or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import openai
import pytest
from huggingface_hub import InferenceClient

from penstock_router.text import TextModel
from router.api import conftest as api
from support.case_folders import sentencepiece, write
from support.fake_engine import FakeEngine
from support.server import SMALL, Server, running_server

serve, text = api.serve, api.text
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = "What is the capital of France?"
HI = [{"role": "user", "content": "hi"}]
LIMITS = re.compile(r"max_batch_prefill_tokens=(\d+)")


@pytest.fixture
def place() -> str:
    return "beside"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model."""
    with running_server(tmp_path_factory.mktemp("demo"), "--device", "cpu") as server:
        yield server


async def post(server: Server, path: str, body: dict[str, Any]) -> Any:
    async with aiohttp.ClientSession(server.url) as session, session.post(path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def events(server: Server, path: str, body: dict[str, Any]) -> list[Any]:
    async with aiohttp.ClientSession(server.url) as session, session.post(path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        return parsed((await reply.read()).decode())


def parsed(stream: str) -> list[Any]:
    """Every event but the last word of a stream."""
    lines = [line.partition(":")[2] for line in stream.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line.strip() != "[DONE]"]


# W13: places of tokens in a stream


HELD = {
    "prompt": QUESTION, "max_tokens": 9, "temperature": 0, "logprobs": 0,
    "stop": [" capital of Spain"],
}  # fmt: skip
PLACES = [0, 4, 12, 15, 22, 25, 31]


async def test_W13_places_of_text_that_was_held_back(demo: Server) -> None:
    [choice] = (await post(demo, COMPLETIONS, HELD))["choices"]
    assert choice["logprobs"]["text_offset"] == PLACES
    pieces = [c["choices"][0] for c in await events(demo, COMPLETIONS, HELD | {"stream": True})]
    shown = [piece["logprobs"] for piece in pieces if piece["logprobs"]]
    assert sum((part["text_offset"] for part in shown), []) == PLACES
    assert sum((part["tokens"] for part in shown), []) == choice["logprobs"]["tokens"]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]


# W6, W14: a token is its text and its bytes


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextModel]:
    """A model of SentencePiece's kind."""
    folder = write(tmp_path_factory.mktemp("pieces") / "model", sentencepiece())
    model = TextModel.load(folder, None, 1)
    yield model
    model.close()


class TestPieces:
    """W6"""

    @pytest.fixture
    def text(self, pieces: TextModel) -> TextModel:
        return pieces

    @pytest.mark.parametrize("stream", [False, True], ids=["W6-whole", "W6-streamed"])
    async def test_a_space_is_part_of_its_token(self, serve: Any, stream: bool) -> None:
        client = await serve()
        spelled = {name: token for token, name in client.text.tokenizer.vocabulary().items()}
        client.engine.script = [spelled["▁a"]] * 3
        body = {"messages": HI, "logprobs": True, "max_tokens": 3, "stream": stream}
        if stream:
            answers = parsed((await client.stream(CHAT, body))[1])
        else:
            answers = [(await client.post(CHAT, body))[1]]
        shown = [c["choices"][0]["logprobs"] for c in answers if c["choices"][0]["logprobs"]]
        entries = sum((part["content"] for part in shown), [])
        assert [entry["token"] for entry in entries] == [" a"] * 3
        assert [entry["bytes"] for entry in entries] == [[32, 97]] * 3

    async def test_no_likely_token_hides_another(self, serve: Any) -> None:
        """W6-top: with and without its space, and bytes that are parts of characters."""
        client = await serve(Likely())
        spelled = {name: token for token, name in client.text.tokenizer.vocabulary().items()}
        names = ["▁a", "a", "<0xF0>", "<0x9F>", "e"]
        client.engine.likely = [spelled[name] for name in names]
        client.engine.script = [spelled["a"]]
        body = {"prompt": "x", "logprobs": 5, "max_tokens": 1}
        [choice] = (await client.post(COMPLETIONS, body))[1]["choices"]
        assert choice["logprobs"]["top_logprobs"] == [
            {
                " a": -1.0,
                "a": -1.5,
                "\ufffd": -2.0,
                f"token_id:{spelled['<0x9F>']}": -2.5,
                "e": -3.0,
            }
        ]


class Likely(FakeEngine):
    """Says which tokens are the most likely ones at every place."""

    likely: list[int] = []

    def submit(self, request: Any, listener: Any) -> int:
        top = [(token, -1.0 - place / 2) for place, token in enumerate(self.likely)]

        def told(token: int, logprob: float, _: Any, rank: int) -> bool:
            stops: bool = listener.token(token, dict(top).get(token, -9.0), top, rank)
            return stops

        hearing = SimpleNamespace(
            prompt=listener.prompt, token=told, finish=listener.finish, fail=listener.fail
        )
        return super().submit(request, hearing)  # type: ignore[arg-type]


async def test_bytes_of_part_of_a_character(serve: Any) -> None:
    """W14"""
    client = await serve()
    client.engine.script = client.text.tokenizer.encode("👍")
    body = {"messages": HI, "logprobs": True, "max_tokens": 4}
    _, answer = await client.post(CHAT, body)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in entries] == [[byte] for byte in "👍".encode()]
    assert entries[0]["bytes"] == [240] and entries[0]["token"] == "\ufffd"


# b1: who speaks


async def test_b1_every_delta_says_who_speaks(serve: Any) -> None:
    """As TGI's clients want it, which build an object from each chunk."""
    client = await serve()
    client.engine.script = client.text.tokenizer.encode("The capital</s>")
    body = {"messages": HI, "stream": True}
    deltas = [c["choices"][0]["delta"] for c in parsed((await client.stream(CHAT, body))[1])]
    assert all(delta["role"] == "assistant" and "content" in delta for delta in deltas)
    assert deltas[-1] == {"role": "assistant", "content": ""}


async def test_b1_helpers_that_fold_deltas_hear_it_once(serve: Any) -> None:
    """OpenAI's joins the strings of all deltas."""
    client = await serve()
    client.engine.script = client.text.tokenizer.encode("The capital</s>")
    async with openai.AsyncOpenAI(base_url=client.url + "/v1", api_key="x") as sdk:
        async with sdk.chat.completions.stream(model="m", messages=HI) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        assert (message.role, message.content) == ("assistant", "The capital")
        plain = await sdk.chat.completions.create(model="m", messages=HI, stream=True)
        assert {chunk.choices[0].delta.role async for chunk in plain} == {"assistant"}


# b4: the token itself is among the most likely


@pytest.mark.parametrize("stream", [False, True], ids=["b4-whole", "b4-streamed"])
async def test_the_sampled_token_is_among_the_likely(demo: Server, stream: bool) -> None:
    body = {"prompt": "The", "max_tokens": 2, "logprobs": 1, "temperature": 2, "seed": 5}
    if stream:
        answers = await events(demo, COMPLETIONS, body | {"stream": True})
    else:
        answers = [await post(demo, COMPLETIONS, body)]
    parts = [a["choices"][0]["logprobs"] for a in answers if a["choices"][0]["logprobs"]]
    shown = {name: sum((part[name] for part in parts), []) for name in parts[0]}
    assert len(shown["tokens"]) == 2
    for own, value, likely in zip(
        shown["tokens"], shown["token_logprobs"], shown["top_logprobs"], strict=True
    ):
        assert likely[own] == value and len(likely) == 2  # an unlikely one, and the likeliest


# b6: log-probabilities of prompts


@pytest.mark.parametrize("max_tokens", [0, 1], ids=["b6-0", "b6-1"])
async def test_prompts_are_scored(demo: Server, max_tokens: int) -> None:
    """As lm-eval does it: what a model would say itself is its greedy continuation."""
    context, own, other = QUESTION, " The capital of France is Paris.", " The capital of Spain"
    body = {
        "model": "demo", "prompt": [context + own, context + other], "temperature": 0,
        "max_tokens": max_tokens, "logprobs": 1, "seed": 1234, "echo": True,
    }  # fmt: skip
    answer = await post(demo, COMPLETIONS, body)
    assert answer["usage"]["completion_tokens"] == 2 * max_tokens
    greedy = []
    for choice in answer["choices"]:
        shown = choice["logprobs"]
        assert len({len(values) for values in shown.values()}) == 1
        assert shown["token_logprobs"][0] is None and shown["top_logprobs"][0] is None
        start = next(i for i, at in enumerate(shown["text_offset"]) if at >= len(context))
        stop = len(shown["tokens"]) - max_tokens
        values = shown["token_logprobs"][start:stop]
        likely = shown["top_logprobs"][start:stop]
        greedy.append(
            all(value == max(top.values()) for value, top in zip(values, likely, strict=True))
        )
        rows = list(zip(shown["tokens"], shown["text_offset"], strict=True))
        for token, offset in rows[1:stop]:
            assert choice["text"].startswith(token, offset)
    assert greedy == [True, False]


async def test_prompts_are_scored_in_pieces(demo: Server, tmp_path: Path) -> None:
    """b6-chunks: a prompt that takes several steps is scored as in one."""

    async def scored(server: Server) -> Any:
        prompt = list(range(40, 165))
        body = {"prompt": prompt, "max_tokens": 0, "logprobs": 3, "echo": True}
        [choice] = (await post(server, COMPLETIONS, body))["choices"]
        streamed = await events(server, COMPLETIONS, body | {"stream": True})
        assert streamed[0]["choices"][0]["logprobs"] == choice["logprobs"]
        return choice["logprobs"]

    assert int(LIMITS.search(demo.log)[1]) >= 125
    many = await scored(demo)
    with running_server(tmp_path, "--device", "cpu", *SMALL) as server:
        assert LIMITS.search(server.log)[1] == "64"
        few = await scored(server)
    assert few["tokens"] == many["tokens"] and len(few["tokens"]) == 125
    assert few["token_logprobs"][1:] == pytest.approx(many["token_logprobs"][1:], abs=1e-3)
    assert all(3 <= len(top) <= 4 for top in few["top_logprobs"][1:])
    for one, other in zip(few["top_logprobs"][1:], many["top_logprobs"][1:], strict=True):
        assert max(one.values()) == pytest.approx(max(other.values()), abs=1e-3)


# A7: half a character at the end


@pytest.mark.parametrize("ending", ["", "</s>"], ids=["A7-length", "A7-eos"])
@pytest.mark.parametrize("before", ["", "a "], ids=["first", "later"])
async def test_half_a_character_is_in_the_stream(serve: Any, before: str, ending: str) -> None:
    client = await serve()
    encode = client.text.tokenizer.encode
    script = [*encode(before), encode("👍")[0], *encode(ending)]
    client.engine.script = script
    parameters = {"max_new_tokens": len(script), "details": True}
    body = {"inputs": "x", "parameters": parameters}
    expected = before + "\ufffd"
    tokens = parsed((await client.stream("/generate_stream", body))[1])
    assert tokens[-1]["generated_text"] == expected
    _, whole = await client.post("/generate", body)
    assert whole["generated_text"] == expected
    for listed in ([t["token"] for t in tokens], whole["details"]["tokens"]):
        assert [token["id"] for token in listed] == script
        assert "".join(token["text"] for token in listed if not token["special"]) == expected
    for path, prompt in ((CHAT, {"messages": HI}), (COMPLETIONS, {"prompt": "x"})):
        body = {**prompt, "max_tokens": len(script)}
        pieces = parsed((await client.stream(path, body | {"stream": True}))[1])
        shown = [c["choices"][0] for c in pieces]
        joined = "".join(c["text"] if "text" in c else c["delta"]["content"] for c in shown)
        [choice] = (await client.post(path, body))[1]["choices"]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        assert joined == text == expected


# A8: a stop sequence that ends inside a token


async def test_A8_a_stopped_token_is_cut_like_the_text(serve: Any) -> None:
    client = await serve()
    client.engine.script = client.text.tokenizer.encode("The capital of France")
    parameters = {"stop": ["apit"], "details": True}
    body = {"inputs": "x", "parameters": parameters}
    streamed = parsed((await client.stream("/generate_stream", body))[1])
    _, whole = await client.post("/generate", body)
    assert whole["generated_text"] == streamed[-1]["generated_text"] == "The capit"
    for listed in ([event["token"] for event in streamed], whole["details"]["tokens"]):
        assert [token["text"] for token in listed] == ["The", " capit"]
    hub = InferenceClient(client.url)

    def talk() -> list[str]:
        return list(hub.text_generation("x", stop=["apit"], stream=True))

    import asyncio

    assert "".join(await asyncio.to_thread(talk)) == "The capit"


# b3: time that a request may take


@pytest.mark.parametrize("stream", [False, True], ids=["b3-max_time", "b3-max_time-streamed"])
async def test_an_answer_ends_in_time(demo: Server, stream: bool) -> None:
    most = 500  # which take this model's shard some seconds
    parameters = {
        "max_time": 0.02, "max_new_tokens": most, "ignore_eos": True, "details": True
    }  # fmt: skip
    body = {"inputs": QUESTION, "parameters": parameters}
    if stream:
        *_, last = shown = await events(demo, "/generate_stream", body)
        joined = "".join(e["token"]["text"] for e in shown if not e["token"]["special"])
        assert joined == last["generated_text"]
        details = last["details"]
    else:
        details = (await post(demo, "/generate", body))["details"]
    assert details["finish_reason"] == "length"
    assert details["generated_tokens"] < most


# L9: every field that TGI's OpenAPI document (2.4.1) has in its answers

OF_A_TOKEN, OF_AN_ANSWER = "id text logprob special", "id created model system_fingerprint choices"
DETAILED = {"details": True, "max_new_tokens": 2, "top_n_tokens": 2}
ANSWERS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "L9-generate": (
        "/generate",
        {
            "inputs": "hi",
            "parameters": DETAILED
            | {"best_of": 2, "do_sample": True, "decoder_input_details": True},
        },
        {
            "": "generated_text details",
            "details": "finish_reason generated_tokens prefill seed tokens top_tokens "
            "best_of_sequences",
            "details.tokens.0": OF_A_TOKEN,
            "details.top_tokens.0.0": OF_A_TOKEN,
            "details.prefill.0": "id text logprob",
            "details.best_of_sequences.0": "finish_reason generated_text generated_tokens prefill "
            "seed tokens top_tokens",
        },
    ),
    "L9-stream": (
        "/generate_stream",
        {"inputs": "hi", "parameters": DETAILED},
        {
            "": "index token top_tokens generated_text details",
            "token": OF_A_TOKEN,
            "details": "finish_reason generated_tokens input_length seed",
        },
    ),
    "L9-chat": (
        CHAT,
        {"messages": HI, "max_tokens": 2, "logprobs": True, "top_logprobs": 2},
        {
            "": OF_AN_ANSWER + " usage",
            "choices.0": "index message finish_reason logprobs",
            "choices.0.message": "role content",
            "choices.0.logprobs.content.0": "token logprob top_logprobs",
            "choices.0.logprobs.content.0.top_logprobs.0": "token logprob",
            "usage": "prompt_tokens completion_tokens total_tokens",
        },
    ),
    "L9-chat-stream": (
        CHAT,
        {"messages": HI, "max_tokens": 2, "stream": True},
        {"": OF_AN_ANSWER, "choices.0": "index delta finish_reason logprobs"},
    ),
    "L9-completions": (
        COMPLETIONS,
        {"prompt": ["hi"], "max_tokens": 2},
        {"": OF_AN_ANSWER + " usage object", "choices.0": "index text finish_reason logprobs"},
    ),
    "L9-tokenize": ("/tokenize", {"inputs": "hi"}, {"0": "id text start stop"}),
    "L9-chat_tokenize": (
        "/chat_tokenize",
        {"messages": HI},
        {"": "templated_text tokenize_response", "tokenize_response.0": "id text start stop"},
    ),
    "L9-info": (
        "/info",
        {},
        {
            "": "docker_label max_best_of max_client_batch_size max_concurrent_requests "
            "max_input_tokens max_stop_sequences max_total_tokens model_id model_pipeline_tag "
            "model_sha router sha validation_workers version"
        },
    ),
    "L9-models": ("/v1/models", {}, {"data.0": "id object created owned_by"}),
}


@pytest.mark.parametrize("row", ANSWERS)
async def test_answers_have_every_field_of_tgi(demo: Server, row: str) -> None:
    path, body, fields = ANSWERS[row]
    if not body:
        async with aiohttp.ClientSession(demo.url) as session, session.get(path) as reply:
            answer = await reply.json()
    elif "stream" in path or body.get("stream"):
        answer = (await events(demo, path, body))[-1]
    else:
        answer = await post(demo, path, body)
    for place, names in fields.items():
        inner = answer
        for step in filter(None, place.split(".")):
            inner = inner[int(step) if step.isdigit() else step]
        assert set(names.split()) <= set(inner), (place, inner)
