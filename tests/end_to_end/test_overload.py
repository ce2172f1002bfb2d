"""Ten times more requests than there are permits: turned away at once, the others hardly slower."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from support.server import running_server

PERMITS, ROUNDS = 8, 3
BODY = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 40, "ignore_eos": True}}
# Of admitted requests and of canaries, beside those without load: what a busy machine adds to both
# is no fault. Without permits each of ten times as many would take ten times as long.
MOST_SLOWER = 6.0


async def admitted(session: aiohttp.ClientSession) -> list[float]:
    """Seconds of so many answers, one after the other; refused ones are asked again."""
    seconds: list[float] = []
    while len(seconds) < ROUNDS:
        begun = time.monotonic()
        async with session.post("/generate", json=BODY) as reply:
            await reply.read()
            if reply.status == 200:
                seconds.append(time.monotonic() - begun)
            else:
                assert reply.status == 429 and reply.headers["Retry-After"]
                await asyncio.sleep(0.02)
    return seconds


async def hammer(session: aiohttp.ClientSession, statuses: Counter[int]) -> None:
    """Ask, whatever is answered."""
    while True:
        async with session.post("/generate", json=BODY) as reply:
            await reply.read()
            statuses[reply.status] += 1
        await asyncio.sleep(1.0)


async def canary(session: aiohttp.ClientSession, seconds: list[float]) -> None:
    """What needs no permit is answered all the time."""
    while True:
        begun = time.monotonic()
        for path in ("/health", "/ready", "/live"):
            async with session.get(path) as reply:
                assert reply.status == 200, path
        seconds.append(time.monotonic() - begun)
        await asyncio.sleep(0.1)


@pytest.mark.full
async def test_ten_times_overload(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--num-shard", "1", "--http-processes", "0")
    limits = ("--max-concurrent-requests", str(PERMITS), "--max-connections-per-client", "1000")
    connector = aiohttp.TCPConnector(limit=0)
    with running_server(tmp_path, *arguments, *limits) as server:
        async with aiohttp.ClientSession(server.url, connector=connector) as session:
            alone = await asyncio.gather(*(admitted(session) for _ in range(PERMITS)))
            statuses: Counter[int] = Counter()
            seen: list[float] = []
            others = [asyncio.create_task(canary(session, seen))]
            others += [asyncio.create_task(hammer(session, statuses)) for _ in range(10 * PERMITS)]
            crowded = await asyncio.gather(*(admitted(session) for _ in range(PERMITS)))
            assert not any(task.done() for task in others), "a canary got no answer"
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            async with asyncio.timeout(60):
                while True:
                    async with session.get("/metrics") as reply:
                        if "\npenstock_running_sequences 0\n" in await reply.text():
                            break
                    await asyncio.sleep(0.05)
    before, after = (statistics.median(sum(found, [])) for found in (alone, crowded))
    print(
        f"\nmedian of {PERMITS} at a time: {before:.3f} s alone, {after:.3f} s with "
        f"{10 * PERMITS} more; canaries {statistics.median(seen) * 1e3:.1f} ms; {dict(statuses)}"
    )
    assert set(statuses) <= {200, 429} and statuses[429] > statuses[200]
    assert after < MOST_SLOWER * before
