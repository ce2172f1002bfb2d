"""Structured output through the real server, on two ranks: what comes out is always valid.

PENSTOCK_SCHEMAS says how many schemas are drawn; thousands take a while.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from support.schemas import loosened, schema
from support.server import Server

COUNT = int(os.environ.get("PENSTOCK_SCHEMAS", "10"))
HI = [{"role": "user", "content": "Give me an example."}]


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, (body, answer)
        return answer


@pytest.mark.parametrize("count", [COUNT, pytest.param(24, marks=pytest.mark.full)])
async def test_what_is_generated_validates(demo_server: Server, count: int) -> None:
    """Whatever the schema, the seed and the temperature; only what is cut may be invalid."""
    url = f"{demo_server.url}/v1/chat/completions"
    limit = asyncio.Semaphore(16)
    cut = 0

    async def one(number: int) -> bool:
        chance = random.Random(number)
        wanted = schema(chance)
        if number % 2:
            wanted = loosened(chance, wanted)
        body = {
            "messages": HI,
            "max_tokens": 400,
            "seed": number,
            "temperature": chance.choice([0, 0.7, 1.5]),
            "top_p": chance.choice([1, 0.9]),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": wanted, "strict": True},
            },
        }
        async with limit, aiohttp.ClientSession() as session:
            [choice] = (await post(session, url, body))["choices"]
        if choice["finish_reason"] == "length":
            return True
        assert choice["finish_reason"] == "stop"
        value = json.loads(choice["message"]["content"])
        problems = [error.message for error in Draft202012Validator(wanted).iter_errors(value)]
        assert not problems, (wanted, value)
        return False

    cut = sum(await asyncio.gather(*(one(number) for number in range(count))))
    assert cut <= count // 4
    async with aiohttp.ClientSession() as session, session.get(f"{demo_server.url}/metrics") as all:
        forced = re.search(r"^penstock_forced_tokens_total (\d+)", await all.text(), re.M)
    assert forced and int(forced[1]) > count, "chunks brought none"


async def test_every_field_of_every_api(demo_server: Server) -> None:
    """One expression under all names."""
    pattern, base = "[a-f]{2,5}!", demo_server.url
    parameters = {"max_new_tokens": 20, "grammar": {"type": "regex", "value": pattern}}
    chat = {"messages": HI, "max_tokens": 20}
    lark = f"start: /{pattern}/"
    tags = {"format": {"type": "regex", "pattern": pattern}}
    async with aiohttp.ClientSession() as session:
        texts = [
            (await post(session, f"{base}/generate", {"inputs": "x", "parameters": parameters}))[
                "generated_text"
            ]
        ]
        for extra in (
            {"guided_regex": pattern},
            {"structured_outputs": {"regex": pattern}},
            {"guided_grammar": lark},
            {"guided_grammar": 'root ::= [a-f] [a-f] [a-f]? "!"'},
            {"structured_outputs": {"structural_tag": tags}},
            {"response_format": {"type": "regex", "value": pattern}},
            {"guided_regex": pattern, "logprobs": True, "top_logprobs": 2, "n": 2},
            {"guided_regex": pattern, "ignore_eos": True, "frequency_penalty": 1.0},
        ):
            answer = await post(session, f"{base}/v1/chat/completions", chat | extra)
            texts += [choice["message"]["content"] for choice in answer["choices"]]
    for text in texts:
        assert re.fullmatch(pattern, text), texts


async def test_a_bad_grammar_costs_nothing(demo_server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        for extra, said in (
            ({"guided_regex": "(?=a)b"}, "look-around"),
            ({"guided_json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
            ({"guided_grammar": "start: <|nothing|>"}, "nothing"),
            ({"guided_grammar": "root ::= [a"}, "not a grammar in GBNF"),
            ({"guided_json": {"properties": {"a": {"not": {}}}}}, "properties.a.not"),
        ):
            body = {"messages": HI, "max_tokens": 5, **extra}
            async with session.post(f"{demo_server.url}/v1/chat/completions", json=body) as answer:
                assert answer.status == 422
                assert said in (await answer.json())["error"]["message"]


# It compiles, and is warmed up within its letters; behind them more may follow than the library
# follows up, 2,000 places of a grammar.
WORDS = [" ".join(word) for word in itertools.product("cdefg", repeat=5)]
LETTERS = "".join(f'\n{letter}: "{letter}"' for letter in "cdefg")
FAILING = f"start: /[ab]{{700}}/ ({'|'.join(WORDS[:2600])}){LETTERS}"


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.full), True])
async def test_a_grammar_that_fails_midway_ends_its_request_alone(
    demo_server: Server, stream: bool
) -> None:
    chat = {"messages": HI, "max_tokens": 900, "seed": 1, "stream": stream}
    plain = {"messages": HI, "max_tokens": 300, "seed": 1, "temperature": 1.5}
    url = f"{demo_server.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session:
        before = await failed_grammars(session, demo_server)
        expected = await post(session, url, plain)
        beside = asyncio.create_task(post(session, url, plain))
        body = {**chat, "structured_outputs": {"grammar": FAILING}}
        async with session.post(url, json=body) as response:
            status, text = response.status, await response.text()
        assert (await beside)["choices"] == expected["choices"]
        assert await failed_grammars(session, demo_server) == before + 1
    if stream:
        assert status == 200 and text.count("data: ") > 50
        text = text.rstrip().rpartition("data: ")[2]
        status = json.loads(text)["error"]["code"]
    error = json.loads(text)["error"]
    assert (status, error["type"]) == (424, "generation")
    assert "the grammar of the request failed while text was generated" in error["message"]


async def failed_grammars(session: aiohttp.ClientSession, server: Server) -> int:
    async with session.get(f"{server.url}/metrics") as answer:
        name = r'^penstock_refused_sequences_total\{kind="grammar_failed"\} (\d+)'
        found = re.search(name, await answer.text(), re.MULTILINE)
    assert found
    return int(found[1])
