"""`--deterministic` through the real server, on two shards: every request has the same tokens and
log-probabilities alone, again from the prefix cache, and among others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from support.checkpoints import make_checkpoint
from support.server import Server, running_server

TEXTS = ["aa", "the same words " * 6, "the same words " * 6 + "and others", "z", "some text again"]
Token = tuple[int, float]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("deterministic")
    model = make_checkpoint(folder / "model", "llama3")
    arguments = (
        "--model-id", str(model), "--num-shard", "2", "--device", "cpu", "--dtype", "bfloat16",
        "--deterministic", "--max-total-tokens", "200", "--max-batch-prefill-tokens", "40",
    )  # fmt: skip
    with running_server(folder / "server", *arguments) as running:
        yield running


def wanted(number: int) -> dict[str, Any]:
    """Greedy, and drawn in several ways with a seed."""
    drawn = [{}, {"temperature": 0.8}, {"top_p": 0.7}, {"typical_p": 0.6, "temperature": 1.2}]
    more = drawn[number % len(drawn)]
    sampling = {"do_sample": True, "seed": number, **more} if more else {}
    scored = number % 3 == 0  # such a prompt is computed again, others are found in the cache
    return {"max_new_tokens": 8, "details": True, "decoder_input_details": scored, **sampling}


async def generated(session: aiohttp.ClientSession, url: str, number: int) -> list[Token]:
    """The tokens of a request and of its prompt, with their log-probabilities."""
    body = {"inputs": TEXTS[number % len(TEXTS)], "parameters": wanted(number)}
    async with session.post(f"{url}/generate", json=body) as answer:
        details = (await answer.json())["details"]
    tokens = [*details["prefill"], *details["tokens"]]
    return [(token["id"], token["logprob"]) for token in tokens]


async def test_company_and_cache_change_no_bit(server: Server) -> None:
    numbers = range(12)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/info") as answer:
            assert (await answer.json())["deterministic"] is True
        first = [await generated(session, server.url, number) for number in numbers]
        cached = [await generated(session, server.url, number) for number in reversed(numbers)]
        together = await asyncio.gather(
            *(generated(session, server.url, number) for number in [*numbers, *numbers])
        )
    assert cached[::-1] == first
    assert together == first * 2
