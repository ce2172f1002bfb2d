"""Plugs are pulled: every process killed in turn, and SIGTERM under load."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

from support.server import SMALL, Server, gone, running_server

LONG = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 400, "ignore_eos": True}}
ARGUMENTS = ("--num-shard", "2", "--device", "cpu", *SMALL)


async def read_stream(server: Server, started: asyncio.Event, tokens: int) -> list[str]:
    """Data lines of one long stream; what arrived when the connection broke."""
    lines: list[str] = []
    body = {**LONG, "parameters": {**LONG["parameters"], "max_new_tokens": tokens}}
    try:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/generate_stream", json=body) as reply,
        ):
            async for line in reply.content:
                if line.startswith(b"data:"):
                    lines.append(line[5:].decode())
                    started.set()
    except aiohttp.ClientError:
        pass
    return lines


async def with_streams(
    server: Server, count: int, tokens: int = 400
) -> list[asyncio.Task[list[str]]]:
    """So many streams, all of which have begun."""
    started = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(read_stream(server, event, tokens)) for event in started]
    await asyncio.wait_for(asyncio.gather(*(event.wait() for event in started)), 60)
    return tasks


async def turned_away(server: Server) -> bool:
    """Whether a request is, or its connection."""
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 1}}
    try:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/generate", json=body) as reply,
        ):
            return reply.status == 503
    except aiohttp.ClientError:
        return True


@pytest.mark.parametrize(
    "victim", [pytest.param("shard 0", marks=pytest.mark.full), "shard 1", "router"]
)
async def test_a_killed_child_takes_the_group_down(tmp_path: Path, victim: str) -> None:
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        streams = await with_streams(server, 4)
        role, _, index = victim.partition(" ")
        server.children(role)[int(index or 0)].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        code = await asyncio.to_thread(server.process.wait, 60)
        assert time.monotonic() - killed < 60, "the group outlived its member"
        assert code != 0
        assert victim in server.last_line and "SIGKILL" in server.last_line, server.last_line
        assert gone(processes, 60)
        assert not server.left_behind()
        for lines in await asyncio.gather(*streams):
            assert len(lines) < 400, "a stream looked finished"
            if victim != "router":
                assert '"error"' in lines[-1], "no error event at the end of the stream"


async def test_children_die_with_a_killed_launcher(tmp_path: Path) -> None:
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        assert len(processes) >= 3
        streams = await with_streams(server, 2)
        server.process.kill()
        assert await asyncio.to_thread(gone, processes, 60)
        deadline = time.monotonic() + 60
        while server.left_behind() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert not server.left_behind()
        await asyncio.gather(*streams)


async def test_sigterm_drains(tmp_path: Path) -> None:
    with running_server(tmp_path, *ARGUMENTS, "--graceful-termination-timeout", "60") as server:
        processes = server.descendants()
        streams = await with_streams(server, 4, tokens=150)
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            while not await turned_away(server):
                await asyncio.sleep(0.02)
        for lines in await asyncio.gather(*streams):
            assert '"finish_reason"' in lines[-1] or '"generated_text":"' in lines[-1]
            assert len(lines) == 150
        assert await asyncio.to_thread(server.process.wait, 60) == 0
        assert gone(processes, 60) and not server.left_behind()


async def test_sigterm_ends_what_outlasts_the_grace_period(tmp_path: Path) -> None:
    with running_server(tmp_path, *ARGUMENTS, "--graceful-termination-timeout", "1") as server:
        streams = await with_streams(server, 2)
        body = {**LONG, "parameters": {**LONG["parameters"], "max_new_tokens": 1500}}
        endless = []
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/generate_stream", json=body) as reply,
        ):
            await reply.content.readline()
            server.process.send_signal(signal.SIGTERM)
            async for line in reply.content:
                endless.append(line.decode())
        if '"generated_text":null' in "".join(endless[-4:]):
            assert '"error"' in "".join(endless[-4:])
        await asyncio.gather(*streams)
        assert await asyncio.to_thread(server.process.wait, 60) == 0


def test_the_port_is_all_that_listens(demo_server: Server) -> None:
    """Sockets between the processes are Unix sockets, or loopback where gloo needs TCP."""
    port = int(demo_server.url.rsplit(":", 1)[1])
    for process in [psutil.Process(demo_server.process.pid), *demo_server.descendants()]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1")
                assert connection.laddr.port == port or connection.laddr.ip == "127.0.0.1"
    folder = demo_server.left_behind()[0]
    assert folder.stat().st_mode & 0o777 == 0o700
