"""Grammars begin at the exact token behind reasoning, on a real server.

A tiny model that knows nothing is pushed towards the token that ends its reasoning, so texts of
both kinds come up: what is thought is free, and what is answered is held.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import validate
from tokenizers import Tokenizer

from support.checkpoints import VOCABULARY, make_checkpoint
from support.server import Server, running_server

CLOSE = "</think>"
SCHEMA = {
    "type": "object",
    "properties": {
        "customer_full_name": {"enum": ["ann", "bob"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["customer_full_name", "age"],
    "additionalProperties": False,
}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if not enable_thinking is defined or "
    "enable_thinking %}<think>\n{% else %}<think>\n</think>\n{% endif %}{% endif %}"
)
HI = [{"role": "user", "content": "Give me an example."}]


def thinking_model(folder: Path) -> tuple[Path, int]:
    """A model folder whose template opens reasoning, and the token that closes it."""
    make_checkpoint(folder, "llama2", vocab_size=VOCABULARY + 8)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<think>", CLOSE])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    close = tokenizer.token_to_id(CLOSE)
    assert close is not None and close < VOCABULARY + 8
    return folder, close


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    folder = tmp_path_factory.mktemp("thinking")
    model, close = thinking_model(folder / "model")
    arguments = ["--model-id", str(model), "--device", "cpu", "--dtype", "float32"]
    arguments += ["--max-total-tokens", "400", "--max-input-tokens", "100"]
    with running_server(folder, *arguments, "--reasoning-parser", "deepseek_r1") as server:
        yield server, close


async def ask(url: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": HI, "max_tokens": 250, "temperature": 1.0, **fields}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def streamed(url: str, **fields: Any) -> tuple[str, str, str]:
    """Reasoning, content and the reason of the end, from a stream."""
    body = {"messages": HI, "max_tokens": 250, "temperature": 1.0, "stream": True, **fields}
    thought = said = reason = ""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                thought += choice["delta"].get("reasoning_content") or ""
                said += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
    return thought, said, reason


def held(kind: str) -> dict[str, Any]:
    if kind == "schema":
        shape = {"name": "x", "schema": SCHEMA, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": shape}}
    return {"guided_regex": "[ab]{4,9}!"}


def check(kind: str, said: str) -> None:
    if kind == "schema":
        validate(json.loads(said), SCHEMA)
    else:
        assert re.fullmatch("[ab]{4,9}!", said.strip()), said


@pytest.mark.parametrize("kind", ["schema", pytest.param("regex", marks=pytest.mark.full)])
async def test_what_is_thought_is_free_and_what_is_said_is_held(
    thinking: tuple[Server, int], kind: str
) -> None:
    server, close = thinking

    async def one(seed: int) -> str:
        fields = {**held(kind), "seed": seed, "logit_bias": {str(close): 4.0}}
        [choice] = (await ask(server.url, **fields))["choices"]
        thought = choice["message"].get("reasoning_content") or ""
        said = choice["message"]["content"] or ""
        assert CLOSE not in thought + said
        if choice["finish_reason"] == "stop":
            check(kind, said)
            assert await streamed(server.url, **fields) == (thought, said, "stop")
        return thought if choice["finish_reason"] == "stop" else ""

    thoughts = await asyncio.gather(*(one(seed) for seed in range(8)))
    assert sum(len(thought) > 3 for thought in thoughts) > 2


async def test_without_reasoning_the_answer_is_held_from_its_first_token(
    thinking: tuple[Server, int],
) -> None:
    server, _ = thinking
    fields = {"chat_template_kwargs": {"enable_thinking": False}, **held("schema"), "seed": 3}
    [choice] = (await ask(server.url, **fields))["choices"]
    assert not choice["message"].get("reasoning_content")
    check("schema", choice["message"]["content"])


@pytest.mark.parametrize(
    ("budget", "kind"),
    [
        (0, "free"),
        (7, "schema"),
        pytest.param(0, "schema", marks=pytest.mark.full),
        pytest.param(7, "free", marks=pytest.mark.full),
    ],
)
async def test_a_budget_ends_what_is_thought(
    thinking: tuple[Server, int], budget: int, kind: str
) -> None:
    """At the token that it names, and the answer goes on behind it."""
    server, close = thinking
    fields: dict[str, Any] = {"seed": 5, "logit_bias": {str(close): -100}, "return_token_ids": True}
    fields |= {"thinking_token_budget": budget, "max_tokens": 120}
    answer = await ask(server.url, **fields, **(held(kind) if kind != "free" else {}))
    [choice] = answer["choices"]
    assert choice["token_ids"].index(close) == budget
    assert choice["message"]["content"]
    assert bool(choice["message"].get("reasoning_content")) == bool(budget)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= budget + 1
    if kind != "free" and choice["finish_reason"] == "stop":
        check(kind, choice["message"]["content"])


async def test_the_budget_of_anthropic(thinking: tuple[Server, int]) -> None:
    server, close = thinking
    body = {"model": "m", "messages": HI, "max_tokens": 60, "seed": 5}
    texts = []
    for budget in (4, 59):
        thought = {"type": "enabled", "budget_tokens": budget}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/v1/messages", json={**body, "thinking": thought}) as found,
        ):
            answer = await found.json()
            assert found.status == 200, answer
            texts.append([b for b in answer["content"] if b["type"] == "thinking"])
    [[short], [long]] = texts
    assert long["thinking"].startswith(short["thinking"].rstrip()[:4])
    assert len(short["thinking"]) < len(long["thinking"])


async def test_reasoning_that_takes_all_tokens_says_so(thinking: tuple[Server, int]) -> None:
    server, close = thinking
    fields = {**held("schema"), "max_tokens": 12, "logit_bias": {str(close): -100}}
    answer = await ask(server.url, **fields)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "length" and not choice["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 12
