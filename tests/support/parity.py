"""A run of mixed requests whose greedy output must equal that of `transformers`.

One run of mixed requests holds everything that could change an answer: arrivals at random, prompts
longer than a prefill budget, cached prefixes, preemption in a tiny KV pool, clients that leave.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import aiohttp
import pytest

from support.reference import ReferenceModel
from support.server import Server

WORDS = [
    "the",
    "a",
    "river",
    "valve",
    "turbine",
    "steel",
    "pipe",
    "Zürich",
    "漢字",
    "42",
    "{}",
    "\n",
]
NEAR = 1e-3
TINY_POOL = (
    *("--max-batch-total-tokens", "248", "--kv-block-size", "8", "--max-batch-size", "16"),
    *("--max-batch-prefill-tokens", "24", "--max-total-tokens", "200"),
)


@dataclass(frozen=True)
class Case:
    text: str
    max_new_tokens: int


def mixed_cases(seed: int, count: int = 16) -> list[Case]:
    """Prompts of 1 to 20 words; half of them share a beginning."""
    rng = random.Random(seed)
    stem = " ".join(rng.choices(WORDS, k=14))
    cases = []
    for index in range(count):
        own = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        text = f"{stem} {own}" if index % 2 else own
        cases.append(Case(text, rng.randint(20, 70)))
    return cases


async def generate(session: aiohttp.ClientSession, case: Case, **parameters: object) -> dict:
    body = {
        "inputs": case.text,
        "parameters": {
            "max_new_tokens": case.max_new_tokens,
            "ignore_eos": True,
            "details": True,
            "do_sample": False,
            **parameters,
        },
    }
    async with session.post("/generate", json=body) as reply:
        answer = await reply.json()
        assert reply.status == 200, answer
        return answer


async def leave_early(session: aiohttp.ClientSession, case: Case, after: int) -> None:
    """A client that reads so many events and hangs up."""
    body = {
        "inputs": case.text,
        "parameters": {"max_new_tokens": 60, "ignore_eos": True},
    }
    async with session.post("/generate_stream", json=body) as reply:
        async for line in reply.content:
            after -= line.startswith(b"data:")
            if after <= 0:
                reply.close()
                return


def assert_equal(answer: dict, case: Case, reference: ReferenceModel, near: float = NEAR) -> None:
    tokens = answer["details"]["tokens"]
    ids = [token["id"] for token in tokens]
    expected = reference.generate(case.text, case.max_new_tokens, ids)
    assert ids == expected.tokens, case
    for token, logprob in zip(tokens, expected.logprobs, strict=True):
        assert token["logprob"] == pytest.approx(logprob, abs=near)


async def mixed_run(
    server: Server, reference: ReferenceModel, seed: int, near: float = NEAR
) -> None:
    """near: of log-probabilities; a KV cache in few bits rounds ties one way or the other."""
    cases = mixed_cases(seed)
    rng = random.Random(seed)
    async with aiohttp.ClientSession(server.url) as session:
        assert_equal(await generate(session, cases[0]), cases[0], reference, near)
        tasks, leavers = [], []
        for case in cases:
            tasks.append(asyncio.create_task(generate(session, case)))
            if rng.random() < 0.3:
                leaver = leave_early(session, rng.choice(cases), rng.randint(1, 10))
                leavers.append(asyncio.create_task(leaver))
            await asyncio.sleep(rng.random() * 0.02)
        for case, answer in zip(cases, await asyncio.gather(*tasks), strict=True):
            assert_equal(answer, case, reference, near)
        await asyncio.gather(*leavers)
        metrics = await settled_metrics(session)
        if not metrics["penstock_preemptions_total"]:  # a GPU is done before the next arrives
            burst = [generate(session, case) for case in cases]
            for case, answer in zip(cases, await asyncio.gather(*burst), strict=True):
                assert_equal(answer, case, reference, near)
            metrics = await settled_metrics(session)
        assert metrics["penstock_prefix_cache_hit_tokens_total"] > 0
        assert metrics["penstock_preemptions_total"] > 0
        assert metrics["penstock_kv_blocks_used"] == 0
        await check_prompt_logprobs(session, cases[1], reference)


async def check_prompt_logprobs(
    session: aiohttp.ClientSession, case: Case, reference: ReferenceModel
) -> None:
    answer = await generate(session, case, decoder_input_details=True)
    prefill = answer["details"]["prefill"]
    assert prefill[0]["logprob"] is None
    expected = reference.generate(case.text, 1).prompt_logprobs
    for token, logprob in zip(prefill[1:], expected, strict=True):
        assert token["logprob"] == pytest.approx(logprob, abs=1e-3)


async def settled_metrics(session: aiohttp.ClientSession) -> dict[str, float]:
    """Metrics without labels, once the cancelled requests are gone."""
    for _ in range(100):
        async with session.get("/metrics") as reply:
            lines = (await reply.text()).splitlines()
        pairs = (line.split(" ") for line in lines if line and line[0] != "#" and "{" not in line)
        metrics = {name: float(value) for name, value in pairs}
        if metrics["penstock_kv_blocks_used"] == 0:
            break
        await asyncio.sleep(0.05)
    return metrics
