"""gpt-oss through the whole server: a tiny one in MXFP4 with harmony's tokens, held to its format.

It knows nothing, so what comes is what its grammars leave: they begin behind its channel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from tokenizers import Tokenizer

from support.checkpoints import make_checkpoint
from support.harmony import write_harmony
from support.mxfp4_experts import quantise_experts
from support.server import Server, running_server

ASK = [{"role": "user", "content": "The weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}, "days": {"enum": [1, 2]}},
            "required": ["unit", "days"],
            "additionalProperties": False,
        },
    },
}
SCHEMA: dict[str, Any] = WEATHER["function"]["parameters"]  # type: ignore[index]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Tokenizer]]:
    folder: Path = tmp_path_factory.mktemp("gpt-oss")
    model = make_checkpoint(folder / "model", "gpt_oss", vocab_size=640)
    quantise_experts(model, folder / "twin")
    write_harmony(model)
    arguments = ("--model-id", str(model), "--device", "cpu", "--dtype", "float32")
    lengths = ("--max-input-tokens", "300", "--max-total-tokens", "480")
    with running_server(folder, *arguments, *lengths, "--quantize", "mxfp4") as server:
        yield server, Tokenizer.from_file(str(model / "tokenizer.json"))


async def ask(server: Server, path: str = "/v1/chat/completions", **body: Any) -> Any:
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post(path, json={"temperature": 1.0, **body}) as answer,
    ):
        found = await answer.json()
        assert answer.status == 200, found
        return found


def towards(tokenizer: Tokenizer, *tokens: str) -> dict[str, float]:
    """A bias towards some tokens, which leaves others room."""
    return {str(tokenizer.token_to_id(token)): 4.0 for token in tokens}


async def test_a_forced_call(served: tuple[Server, Tokenizer]) -> None:
    server, tokenizer = served
    thoughts = 0
    for seed in range(4):
        bias = towards(tokenizer, "<|end|>")  # else it would think until the tokens run out
        answer = await ask(server, messages=ASK, tools=[WEATHER], tool_choice="required",
                           max_tokens=250, seed=seed, logit_bias=bias)  # fmt: skip
        [choice] = answer["choices"]
        assert choice["finish_reason"] == "tool_calls", choice
        [call] = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
        assert not choice["message"]["content"]
        thoughts += bool(choice["message"].get("reasoning_content"))
    assert thoughts, "what is thought is free, and no part of the call"


async def test_a_schema_holds_the_final_channel(served: tuple[Server, Tokenizer]) -> None:
    server, tokenizer = served
    shape = {"name": "weather", "schema": SCHEMA, "strict": True}
    answer = await ask(
        server, messages=ASK, max_tokens=250, seed=1, logit_bias=towards(tokenizer, "<|end|>"),
        response_format={"type": "json_schema", "json_schema": shape},
    )  # fmt: skip
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


async def test_free_answers_end_with_a_turn(served: tuple[Server, Tokenizer]) -> None:
    """`<|call|>` ends one as `<|return|>` does."""
    server, tokenizer = served
    for token in ("<|call|>", "<|return|>"):
        bias = {str(tokenizer.token_to_id(token)): 100.0}
        answer = await ask(server, messages=ASK, max_tokens=20, logit_bias=bias)
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 1


async def test_info_says_what_is_served(served: tuple[Server, Tokenizer]) -> None:
    server, _ = served
    async with aiohttp.ClientSession(server.url) as session, session.get("/info") as answer:
        info = await answer.json()
    assert info["model_dtype"] == "float32"
    assert "mxfp4" in json.dumps(info)
