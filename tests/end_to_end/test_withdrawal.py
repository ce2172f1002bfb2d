"""SIGTERM before balancers look away: /ready says so at once, and requests are taken for a while.

Delays are an hour, so that nothing here ends because its time is up.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import psutil
import pytest

from support.server import SMALL, Server, gone, running_server

DELAY = ("--drain-delay", "3600", "--graceful-termination-timeout", "86400")
ARGUMENTS = ("--device", "cpu", *DELAY, *SMALL)
SHORT = {"inputs": "hi", "parameters": {"max_new_tokens": 3, "ignore_eos": True}}
LOOKS = ("/ready", "/health", "/health_generate")


async def status(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as reply:
        return reply.status


async def withdrawn(server: Server, session: aiohttp.ClientSession, path: str) -> None:
    """SIGTERM behind a look, and wait until whoever looks is sent elsewhere."""
    assert await status(session, path) == 200
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while await status(session, "/ready") != 503:
            await asyncio.sleep(0.02)


async def end(server: Server, processes: list[psutil.Process]) -> int:
    code = await asyncio.to_thread(server.process.wait, 60)
    assert gone(processes, 60) and not server.left_behind()
    return code


@pytest.mark.parametrize("fronts", ["0", "2"])
async def test_requests_are_taken_while_balancers_look_away(tmp_path: Path, fronts: str) -> None:
    """Each answer is its connection's last. A second signal ends all of it at once, and so does a
    shard that dies."""
    with running_server(tmp_path, *ARGUMENTS, "--http-processes", fronts) as server:
        processes = server.descendants()
        async with aiohttp.ClientSession(server.url) as session:
            await withdrawn(server, session, LOOKS[int(fronts)])
            for _ in range(4):  # whichever process it is
                told = [await status(session, path) for path in (*LOOKS, "/live")]
                assert told == [503, 503, 503, 200]
                async with session.post("/generate", json=SHORT) as reply:
                    assert reply.status == 200 and reply.headers["Connection"] == "close"
                    assert (await reply.json())["generated_text"]
        if fronts == "0":
            server.children("shard")[0].kill()
            code, last = 1, "shard 0 was killed by SIGKILL"
        else:
            server.process.send_signal(signal.SIGTERM)
            code, last = 128 + signal.SIGTERM, "stopped at once"
        assert await end(server, processes) == code
        assert last in server.last_line, server.log


async def test_nobody_is_waited_for_where_nobody_looks(tmp_path: Path) -> None:
    """Requests alone are no reason: their clients do not look away."""
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        async with aiohttp.ClientSession(server.url) as session:
            async with session.post("/generate", json=SHORT) as reply:
                assert reply.status == 200
            assert await status(session, "/live") == 200
        server.process.send_signal(signal.SIGTERM)
        assert await end(server, processes) == 0
