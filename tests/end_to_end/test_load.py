"""More streams than the pool holds: all of them end, with the right answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from support.server import SMALL, Server, running_server


async def stream(session: aiohttp.ClientSession, index: int) -> tuple[str, int]:
    """Text and number of tokens of one streamed answer."""
    body = {
        "inputs": f"Count from {index % 10} on.",
        "parameters": {"max_new_tokens": 24, "ignore_eos": True, "do_sample": False},
    }
    async with session.post("/generate_stream", json=body) as reply:
        assert reply.status == 200, await reply.text()
        events = [json.loads(line[5:]) async for line in reply.content if line[:5] == b"data:"]
    assert "error" not in events[-1], events[-1]
    return events[-1]["generated_text"], len(events)


@pytest.mark.parametrize("streams", [70, pytest.param(200, marks=pytest.mark.full)])
async def test_streams_through_a_pool_that_forces_queueing(tmp_path: Path, streams: int) -> None:
    """More than twice as many as a batch takes, more than the pool has blocks for."""
    arguments = ("--num-shard", "2", "--device", "cpu", "--max-concurrent-requests", "200")
    pool = (
        "--max-batch-total-tokens",
        "1024",
        "--max-batch-size",
        "32",
        "--max-total-tokens",
        "512",
    )
    with running_server(tmp_path, *arguments, *pool) as server:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(server.url, connector=connector) as session:
            alone = [await stream(session, index) for index in range(10)]
            peak = asyncio.create_task(largest_queue(server))
            answers = await asyncio.gather(*(stream(session, i) for i in range(streams)))
            peak.cancel()
        different = 0
        for index, (text, tokens) in enumerate(answers):
            assert tokens == 24
            different += text != alone[index % 10][0]
        assert different == 0
        assert max(QUEUES) > 0, "nothing ever waited"


QUEUES: list[float] = [0.0]


async def largest_queue(server: Server) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        while True:
            async with session.get("/metrics") as reply:
                for line in (await reply.text()).splitlines():
                    if line.startswith("tgi_queue_size "):
                        QUEUES.append(float(line.split()[1]))
            await asyncio.sleep(0.02)


async def test_beyond_the_permits_it_says_429_at_once(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--max-concurrent-requests", "2", *SMALL)
    with running_server(tmp_path, *arguments) as server:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 300, "ignore_eos": True}}
        async with aiohttp.ClientSession(server.url) as session:

            async def status() -> int:
                async with session.post("/generate", json=body) as reply:
                    await reply.read()
                    return reply.status

            statuses = await asyncio.gather(*(status() for _ in range(12)))
        assert sorted(set(statuses)) == [200, 429]
        assert statuses.count(200) >= 2
