"""Plugs are pulled where HTTP has processes of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

import penstock_launcher
from support.server import SMALL, Server, gone, running_server

ARGUMENTS = ("--device", "cpu", "--http-processes", "2", *SMALL)
TOKENS = 1500  # more than any of these servers gets to generate
DEMO = Path(penstock_launcher.__file__).parent / "demo_model"


def long(tokens: int) -> dict[str, object]:
    parameters = {"max_new_tokens": tokens, "ignore_eos": True}
    return {"inputs": "Tell me a story.", "parameters": parameters}


async def read_stream(server: Server, tokens: int, begun: asyncio.Event) -> tuple[list[str], bool]:
    """Data lines of a stream on a connection of its own; whether it ended as HTTP has it."""
    lines: list[str] = []
    try:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/generate_stream", json=long(tokens)) as reply,
        ):
            async for line in reply.content:
                if line.startswith(b"data:"):
                    lines.append(line[5:].decode())
                    begun.set()
    except aiohttp.ClientError:
        return lines, False
    return lines, True


async def with_streams(
    server: Server, count: int, tokens: int = TOKENS
) -> list[asyncio.Task[tuple[list[str], bool]]]:
    begun = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(read_stream(server, tokens, event)) for event in begun]
    await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), 60)
    return tasks


async def all_end(server: Server, processes: list[psutil.Process], seconds: float) -> int:
    """The launcher's exit code, once it and everything of it is gone."""
    begun = time.monotonic()
    code = await asyncio.to_thread(server.process.wait, 60)
    assert time.monotonic() - begun < seconds, "the group outlived its member"
    assert await asyncio.to_thread(gone, processes, 60)
    assert not server.left_behind()
    return code


async def turned_away(server: Server) -> bool:
    """Whether a request on a connection of its own, which the next process gets, is refused."""
    seconds = aiohttp.ClientTimeout(2)
    try:
        async with (
            aiohttp.ClientSession(server.url, timeout=seconds) as session,
            session.post("/generate", json=long(10)) as reply,
        ):
            return (reply.status, (await reply.json())["error_type"]) == (503, "shutting_down")
    except TimeoutError:  # it waits for a shard
        return False


async def test_sigterm_drains(tmp_path: Path) -> None:
    """What runs ends complete, on either process; what comes is turned away; exit code 0.

    The shard stands still until all that is seen, so that nothing ends before, however slow the
    machine is.
    """
    with running_server(tmp_path, *ARGUMENTS, "--graceful-termination-timeout", "60") as server:
        processes = server.descendants()
        assert len(server.children("front")) == 2
        streams = await with_streams(server, 8, tokens=200)
        [shard] = server.children("shard")
        shard.send_signal(signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            while not (await turned_away(server) and await turned_away(server)):
                await asyncio.sleep(0.05)
        for _ in range(2):
            async with (
                aiohttp.ClientSession(server.url) as session,
                session.get("/health") as reply,
            ):
                assert reply.status == 503
        shard.send_signal(signal.SIGCONT)
        for lines, complete in await asyncio.gather(*streams):
            assert complete and len(lines) == 200
            assert json.loads(lines[-1])["generated_text"]
        assert await all_end(server, processes, 60) == 0
        assert "ERROR" not in server.log


@pytest.mark.parametrize("still", [False, True], ids=["", "while another stands still"])
async def test_a_killed_http_process_ends_everything(tmp_path: Path, still: bool) -> None:
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        streams = await with_streams(server, 4)
        first, second = server.children("front")
        if still:
            first.send_signal(signal.SIGSTOP)
        second.send_signal(signal.SIGKILL)
        assert await all_end(server, processes, 60) == 1
        assert "HTTP process 1 was killed by SIGKILL" in server.last_line, server.log
        answers = await asyncio.gather(*streams)
        assert all(len(lines) < TOKENS for lines, _ in answers), "a stream looked finished"
        told = [lines[-1] for lines, complete in answers if complete]
        assert len(told) == (0 if still else 2), "the other one's streams end with a reason"
        assert all("HTTP process 1 was killed by SIGKILL" in line for line in told)


@pytest.mark.parametrize("victim", ["router", "shard"])
async def test_fronts_go_with_the_others(tmp_path: Path, victim: str) -> None:
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        streams = await with_streams(server, 4)
        server.children(victim)[0].send_signal(signal.SIGKILL)
        assert await all_end(server, processes, 60) != 0
        assert victim in server.last_line and "SIGKILL" in server.last_line, server.last_line
        for lines, complete in await asyncio.gather(*streams):
            assert len(lines) < TOKENS, "a stream looked finished"
            if victim == "shard":
                assert '"error"' in lines[-1], "no error event at the end of the stream"
                assert complete


async def test_fronts_go_with_the_launcher(tmp_path: Path) -> None:
    with running_server(tmp_path, *ARGUMENTS) as server:
        processes = server.descendants()
        server.children("front")[1].send_signal(signal.SIGSTOP)
        server.process.kill()
        assert await asyncio.to_thread(gone, processes, 60)


def failed_start(folder: Path, *arguments: str) -> Server:
    """A server that does not come up."""
    server = Server([*ARGUMENTS, *arguments], folder, None)
    processes = []
    deadline = time.monotonic() + 60
    while server.process.poll() is None:
        assert time.monotonic() < deadline, server.log
        processes = server.descendants() or processes
        time.sleep(0.05)
    assert server.process.returncode == 1
    assert gone(processes, 60) and not server.left_behind()
    return server


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    (model / "tokenizer.json").write_text("{}")
    server = failed_start(tmp_path, "--model-id", str(model))
    assert "tokenizer.json is not a tokenizer that can be read" in server.last_line, server.log
    assert "Traceback" not in server.log


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = failed_start(tmp_path, "--port", str(taken.getsockname()[1]))
    assert "in use" in server.last_line and "Traceback" not in server.log, server.log


def test_limits_that_cannot_be_are_the_only_error(tmp_path: Path) -> None:
    """The fronts that wait for the limits end without a word of their own."""
    server = failed_start(tmp_path, "--max-total-tokens", "9999999")
    errors = [line for line in server.log.splitlines() if "ERROR" in line]
    assert errors and all("max-total-tokens" in line for line in errors), server.log
