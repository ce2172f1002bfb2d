"""Real processes in front of a fake engine: how they begin, serve, die and end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock_proto.front_pb2 import Failure, ToFront
from penstock_router.fronts import child
from penstock_router.fronts.child import FrontProcess
from penstock_router.fronts.group import FrontFailure, FrontGroup
from penstock_router.metrics import Metrics
from router.api.conftest import CONFIG
from support.fake_engine import FakeEngine, limits
from support.small_text import byte_level, write_folder

WITHIN = 60.0  # seconds; a process takes one to start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_folder(tmp_path_factory.mktemp("model"), byte_level()))


@contextlib.asynccontextmanager
async def group_of(folder: Path, count: int) -> AsyncIterator[FrontGroup]:
    """Started, and killed at the end if they are still there."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = dataclasses.replace(
        CONFIG, model_path=str(folder), http_processes=count, listener=listener.detach()
    )
    group = FrontGroup(config)
    await group.load()
    try:
        yield group
    finally:
        group._leaving = True
        for front in group._fronts:
            front.kill()
        await asyncio.wait_for(asyncio.gather(*(front.ended for front in group._fronts)), WITHIN)
        if group._acceptor is not None:
            await group._acceptor.close()


async def opened(group: FrontGroup, engine: FakeEngine) -> tuple[str, Metrics]:
    metrics = Metrics(64, 96)
    url = await asyncio.wait_for(group.open(engine, metrics), WITHIN)  # type: ignore[arg-type]
    return url, metrics


async def post(url: str, **parameters: Any) -> tuple[int, Any]:
    """On a connection of its own."""
    body = {"inputs": "hi", "parameters": parameters}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/generate", json=body) as reply,
    ):
        return reply.status, await reply.json()


async def until(condition: Any) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.01)


def codes(group: FrontGroup) -> list[int | None]:
    return [front._process.returncode for front in group._fronts]


async def test_they_serve_drain_and_end(folder: Path) -> None:
    engine = FakeEngine(script=[10, 2])
    async with group_of(folder, 2) as group:
        url, metrics = await opened(group, engine)
        assert [status for status, _ in [await post(url) for _ in range(4)]] == [200] * 4
        await until(lambda: b"\ntgi_request_success 4" in metrics.render())
        engine.hold = True
        last = asyncio.create_task(post(url))
        await until(lambda: len(engine.jobs) == 5)
        engine.draining = True
        group.drain()
        for _ in range(2):
            async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as reply:
                assert reply.status == 503  # without a word from the engine
        assert [status for status, _ in [await post(url) for _ in range(2)]] == [503] * 2
        engine.release()
        assert (await last)[0] == 200
        await asyncio.wait_for(group.close(), 60)
        assert codes(group) == [0, 0] and not group.failed.done()
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(url)


async def test_trouble_from_before_they_opened_is_theirs_too(folder: Path) -> None:
    async with group_of(folder, 1) as group:
        url, _ = await opened(group, FakeEngine(trouble="no answer from shard 1"))
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as reply:
            assert reply.status == 503
            assert (await reply.json())["error"] == "unhealthy: no answer from shard 1"


async def test_the_end_of_an_answer_goes_out_before_they_leave(folder: Path) -> None:
    """What the engine says in the turn before the end is not overtaken by it."""
    engine = FakeEngine(hold=True, script=[10] * 200, tokens_per_turn=1000)
    async with group_of(folder, 2) as group:
        url, _ = await opened(group, engine)
        running = [asyncio.create_task(post(url)) for _ in range(6)]
        await until(lambda: len(engine.jobs) == 6)
        engine.release()
        await asyncio.wait_for(group.close(), 60)
        assert [status for status, _ in await asyncio.gather(*running)] == [200] * 6
        assert codes(group) == [0, 0]


async def test_a_client_that_reads_slowly_gets_the_rest_before_they_leave(folder: Path) -> None:
    """An answer of megabytes, more than the kernel holds for the two of them."""
    tokens = 150_000
    room = limits(max_total_tokens=tokens + 10)
    engine = FakeEngine(limits=room, script=[10], tokens_per_turn=tokens)
    async with group_of(folder, 1) as group:
        url, _ = await opened(group, engine)
        body = b'{"inputs":"hi","parameters":{"details":true,"max_new_tokens":%d}}' % tokens
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        client.sendall(
            b"POST /generate HTTP/1.0\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        reader, writer = await asyncio.open_connection(sock=client)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN)
        assert b" 200 OK" in head
        closing = asyncio.create_task(group.close())
        await asyncio.sleep(0.3)
        answer = json.loads(await asyncio.wait_for(reader.read(), WITHIN))
        assert len(answer["details"]["tokens"]) == tokens
        writer.close()
        await asyncio.wait_for(closing, WITHIN)
        assert codes(group) == [0]


async def test_a_death_is_a_failure_and_frees_what_it_had(folder: Path) -> None:
    engine = FakeEngine(hold=True)
    async with group_of(folder, 2) as group:
        url, _ = await opened(group, engine)
        running = [asyncio.create_task(post(url)) for _ in range(4)]
        await until(lambda: engine.live == 4)
        group._fronts[1]._process.send_signal(signal.SIGKILL)
        with pytest.raises(FrontFailure, match="^HTTP process 1 was killed by SIGKILL$"):
            await asyncio.wait_for(group.failed, WITHIN)
        await until(lambda: engine.live == 2)
        engine.script = [10, 2]
        engine.release()
        results = await asyncio.gather(*running, return_exceptions=True)
        lost = [result for result in results if isinstance(result, aiohttp.ClientError)]
        assert len(lost) == 2


async def test_one_that_takes_nothing_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "UNREAD_BYTES", 2 * 1024 * 1024)
    async with group_of(folder, 1) as group:
        await opened(group, FakeEngine())
        group._fronts[0]._process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            assert not group.failed.done()
            group._fronts[0]._send(ToFront(failure=[Failure(sequence=1, message="x" * 100_000)]))
        group._fronts[0]._send(ToFront(failure=[Failure(sequence=1, message="x" * 1_000_000)]))
        with pytest.raises(FrontFailure, match="HTTP process 0 hangs: 2 MiB are unread"):
            await asyncio.wait_for(group.failed, 60)


async def test_one_that_says_nothing_hangs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(child, "BEAT_SECONDS", 0.5)  # here; the fronts say something every second
    monkeypatch.setattr(child, "SILENT_BEATS", 4)
    async with group_of(folder, 2) as group:
        url, _ = await opened(group, FakeEngine(script=[10, 2]))
        time.sleep(2.5)  # it is this process that stands still
        await asyncio.sleep(2)
        assert not group.failed.done()
        group._fronts[1]._process.send_signal(signal.SIGSTOP)
        await until(lambda: not group._fronts[1].responsive)
        assert [status for status, _ in [await post(url) for _ in range(4)]] == [200] * 4
        with pytest.raises(FrontFailure, match="^HTTP process 1 hangs: .* nothing for [23] s"):
            await asyncio.wait_for(group.failed, WITHIN)
        group._fronts[1]._process.send_signal(signal.SIGCONT)
        await until(lambda: "most recent call first" in capfd.readouterr().err)


async def test_one_that_is_busy_does_not_hang(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1b: it says nothing, but computes; beyond a bound it is taken for dead all the same."""
    monkeypatch.setattr(child, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(child, "SILENT_BEATS", 3)
    monkeypatch.setattr(child, "BUSY_BEATS", 40)
    async with group_of(folder, 1) as group:
        await opened(group, FakeEngine())
        front = group._fronts[0]
        front._process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(front._activity, "_path", Path("/proc/self/stat"))  # computes
        begun = time.monotonic()
        with pytest.raises(FrontFailure, match="^HTTP process 0 hangs: .* nothing for 4 s"):
            while time.monotonic() - begun < WITHIN:
                time.sleep(0.02)
                sum(range(300_000))
                await asyncio.sleep(0.01)
                if group.failed.done():
                    group.failed.result()
        assert time.monotonic() - begun > 3


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x12\x05\x12\x03abc", b"*\x07*\x05wrong"])
async def test_one_that_talks_nonsense(folder: Path, data: bytes) -> None:
    """No message; a prompt of three bytes; a reason that does not exist."""
    async with group_of(folder, 1) as group:
        await opened(group, FakeEngine())
        group._fronts[0]._receive(data)
        with pytest.raises(FrontFailure, match="HTTP process 0 sent what makes no sense: "):
            await asyncio.wait_for(group.failed, WITHIN)


async def test_one_that_hears_nonsense_ends(folder: Path) -> None:
    async with group_of(folder, 1) as group:
        await opened(group, FakeEngine())
        front = group._fronts[0]
        assert front._wire._transport is not None
        front._wire._transport.write((2).to_bytes(4, "little") + b"\xff\xff")
        with pytest.raises(FrontFailure, match="HTTP process 0 ended with code 1"):
            await asyncio.wait_for(group.failed, WITHIN)


async def test_a_folder_without_a_tokenizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reason travels to the server, whose last word it will be; nobody else says it."""
    async with group_of(tmp_path, 2) as group:
        with pytest.raises(FrontFailure, match="HTTP process [01]: .*has neither tokenizer.json"):
            await asyncio.wait_for(group.failed, WITHIN)
    assert "needs a fast tokenizer" not in capfd.readouterr().err


async def test_who_has_lost_the_scheduling_process_ends_at_once(folder: Path) -> None:
    """Though a request of its own has a minute to go."""
    engine = FakeEngine(hold=True)
    async with group_of(folder, 1) as group:
        url, _ = await opened(group, engine)
        running = asyncio.create_task(post(url))
        await until(lambda: engine.jobs)
        front = group._fronts[0]
        front._wire.close()
        await asyncio.wait_for(front.ended, 60)
        assert codes(group) == [1]
        with pytest.raises(aiohttp.ClientError):
            await running


@pytest.mark.parametrize("loaded", [False, True])
async def test_who_loses_it_while_it_waits_ends_without_a_word(
    folder: Path, capfd: pytest.CaptureFixture[str], loaded: bool
) -> None:
    reasons: list[str] = []
    permits = os.memfd_create("permits")
    os.ftruncate(permits, 8)
    config = dataclasses.replace(CONFIG, model_path=str(folder), http_processes=1)
    front = await FrontProcess.start(config, 0, permits, reasons.append)
    os.close(permits)
    if loaded:
        await asyncio.sleep(2)
    assert front._process.stdin is not None
    front._process.stdin.close()
    await asyncio.wait_for(front.ended, WITHIN)
    assert reasons == ["HTTP process 0 ended with code 1"]
    # Where other tests have used gRPC, this process says something as it forks.
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if "fork_posix" not in line]
    front.kill()


async def test_a_killed_one_is_not_a_failure_once_they_leave(folder: Path) -> None:
    async with group_of(folder, 2) as group:
        await opened(group, FakeEngine())
        group._fronts[0]._process.send_signal(signal.SIGSTOP)
        closing = asyncio.create_task(group.close())
        await until(lambda: group._fronts[1].ended.done())
        group._fronts[0]._process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(closing, 60)
        assert codes(group) == [-9, 0] and not group.failed.done()
