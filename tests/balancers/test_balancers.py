"""HAProxy and Envoy, as the chart configures them, before three servers of the demo model."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from balancers.fleet import ENVOY, HAPROXY, KINDS, Kind, Replica, balancer, configuration
from balancers.load import LONGEST, Sent, conversation, one, under_load
from support.server import gone

ROOT = Path(__file__).parents[2]
SESSIONS, TURNS = 10, 5
# How a request fails whose server died: an answer of the balancer, a stream that breaks off, or,
# where it was not the first on its client's connection, HAProxy's end of that connection.
DIED = re.compile("50[23]: |cut: |ServerDisconnectedError|ClientPayloadError")
full = pytest.mark.full
both = pytest.mark.parametrize("kind", [HAPROXY, ENVOY], ids=list(KINDS))


def told(*arguments: str) -> str:
    """What git says; empty where it fails."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The version before this one: PENSTOCK_PREVIOUS, the last tag, main, or some commits ago."""
    version = os.environ.get("PENSTOCK_PREVIOUS") or told("describe", "--tags", "--abbrev=0")
    if not version:
        away = told("rev-parse", "main") not in ("", told("rev-parse", "HEAD"))
        version = "main" if away else "HEAD~20"
    tree = tmp_path_factory.mktemp("previous") / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", str(tree), version], check=True, capture_output=True)
    yield tree
    subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, previous: Path) -> Iterator[list[Replica]]:
    """Two of this version and one of the version before it, as in the middle of an update."""
    folder = tmp_path_factory.mktemp("replicas")
    trees = (None, None, previous)
    found = [Replica(folder / str(place), tree) for place, tree in enumerate(trees)]
    try:
        for replica in found:
            replica.wait_ready()
        yield found
    finally:
        for replica in found:
            replica.end()


async def hit_rate(url: str, replicas: list[Replica], first_session: int) -> float:
    """Share of prompt tokens that the prefix caches had, of conversations in no order; one at a
    time, so that load moves none."""
    names = ("penstock_prefix_cache_hit_tokens_total", "penstock_prefix_cache_queried_tokens_total")
    before = [sum(replica.counted(name) for replica in replicas) for name in names]
    chance = random.Random(5)
    async with aiohttp.ClientSession() as http:
        for turn in range(TURNS):
            for session in chance.sample(range(SESSIONS), SESSIONS):
                sent = Sent(time.monotonic())
                await one(http, url, conversation(first_session + session, turn), sent)
                assert not sent.failure
    hits, queried = (
        sum(replica.counted(name) for replica in replicas) - old
        for name, old in zip(names, before, strict=True)
    )
    return hits / queried


@full
@both
async def test_prefixes_are_hit_where_they_are(
    kind: Kind, replicas: list[Replica], tmp_path: Path, record_property: Any
) -> None:
    rates = {}
    for place, affinity in enumerate(("none", "prefix")):
        with balancer(kind, tmp_path, replicas, affinity=affinity) as url:
            session = (1 + place) * 1000 + (10_000 if kind is ENVOY else 0)
            rates[affinity] = await hit_rate(url, replicas, session)
    print(f"\n{kind.mode}: prefix-hit rate {rates['none']:.2f} in turn, {rates['prefix']:.2f} kept")
    assert rates["prefix"] > rates["none"] + 0.1
    assert rates["prefix"] > 0.6


async def restart(replicas: list[Replica]) -> None:
    """One after the other."""
    for replica in replicas:
        await asyncio.sleep(1)
        code = await asyncio.to_thread(replica.server.terminate)
        assert code == 0, replica.server.log
        replica.start_again()
        await asyncio.to_thread(replica.wait_ready)
        await asyncio.sleep(3)  # the balancer has seen it


@full
@both
async def test_rolling_restart(kind: Kind, replicas: list[Replica], tmp_path: Path) -> None:
    """Each server is ended and started again, one after the other: no request fails."""
    with balancer(kind, tmp_path, replicas) as url:
        async with under_load(url) as clients:
            await restart(replicas)
        print(f"\n{kind.mode}: rolling restart under {len(clients.sent)} requests")
        assert len(clients.sent) > 50
        assert [it.failure for it in clients.failed] == []


@full
@both
async def test_no_size_is_lost_in_a_restart(
    kind: Kind, replicas: list[Replica], tmp_path: Path
) -> None:
    """Nor what is longer than a balancer keeps, by servers of this version: they are out of its
    sight before they turn anybody away."""
    with balancer(kind, tmp_path, replicas) as url:
        async with under_load(url, long=LONGEST) as clients:
            await restart(replicas[:2])
        print(f"\n{kind.mode}: restart under {len(clients.sent)} requests, a third of 1.9 MB")
        assert len(clients.sent) > 50
        assert [it.failure for it in clients.failed] == []


@full
@both
async def test_one_is_killed(kind: Kind, replicas: list[Replica], tmp_path: Path) -> None:
    """Requests that it had fail, if they do; none that came later does.

    Later: when its last process is gone. Until then the kernel completes connections to the port
    of the dead, and takes requests that nobody reads: no balancer can know that they did not begin.
    """
    victim = replicas[0]
    with balancer(kind, tmp_path, replicas) as url:
        async with under_load(url) as clients:
            while clients.ended < 12:
                await asyncio.sleep(0.05)
            processes = victim.server.descendants()
            for process in [victim.server.process, *processes]:
                process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(victim.server.process.wait)
            assert await asyncio.to_thread(gone, processes, 60)
            killed = time.monotonic()
            goal = clients.ended + 30
            while clients.ended < goal:
                await asyncio.sleep(0.05)
        later = [it for it in clients.failed if it.begun > killed]
        print(f"\n{kind.mode}: {len(clients.failed)} of {len(clients.sent)} failed, all before:")
        print(*sorted({it.failure[:80] for it in clients.failed}), sep="\n")
        assert [it.failure for it in later] == []
        assert all(DIED.match(it.failure) for it in clients.failed), clients.failed
    victim.start_again()
    victim.wait_ready()


@full
async def test_clients_that_never_stop(replicas: list[Replica]) -> None:
    """Each connects anew for each request, while the server drains and closes its port: it is
    answered or refused, never left without a word."""
    replica, heard, over = replicas[0], Counter[str](), asyncio.Event()
    body = b'{"inputs":"hi","parameters":{"max_new_tokens":2}}'
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = f"POST /generate HTTP/1.1\r\n{head}\r\n\r\n".encode() + body

    async def go_on() -> None:
        while not over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
            except ConnectionRefusedError:
                heard["refused"] += 1
                await asyncio.sleep(0.1)
                continue
            try:
                writer.write(request)
                heard[(await reader.readline())[9:12].decode() or "nothing"] += 1
            except ConnectionError as error:
                heard[repr(error)] += 1
            writer.close()

    clients = [asyncio.create_task(go_on()) for _ in range(16)]
    while heard["200"] < 50:
        await asyncio.sleep(0.05)
    code = await asyncio.to_thread(replica.server.terminate)
    while not heard["refused"]:
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*clients)
    print(f"\n{dict(heard)}")
    assert code == 0 and heard["503"] and heard.keys() <= {"200", "503", "refused"}
    replica.start_again()
    replica.wait_ready()


@full
@both
async def test_streams_are_not_kept_back(
    kind: Kind, replicas: list[Replica], tmp_path: Path
) -> None:
    """Tokens come one by one."""
    body = conversation(7, 7) | {"stream": True, "max_tokens": 200}
    with balancer(kind, tmp_path, replicas) as url:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}/v1/chat/completions", json=body) as answer,
        ):
            pieces = [piece async for piece in answer.content.iter_any()]
    assert len(pieces) > 20


@full
async def test_a_session_stays(replicas: list[Replica], tmp_path: Path) -> None:
    """Whatever its prompts are."""
    with balancer(HAPROXY, tmp_path, replicas) as url:
        before = [replica.counted("tgi_request_count") for replica in replicas]
        async with aiohttp.ClientSession(headers={"x-session-id": "someone"}) as http:
            for session in range(8):
                sent = Sent(time.monotonic())
                await one(http, url, conversation(session, 0), sent)
                assert not sent.failure
        after = [replica.counted("tgi_request_count") for replica in replicas]
        assert sorted(new - old for new, old in zip(after, before, strict=True)) == [0, 0, 8]


@both
def test_the_configuration_is_one(kind: Kind, tmp_path: Path) -> None:
    """With pods and with servers, with affinity and without: the balancer itself says so."""
    program = kind.program()
    for number, values in enumerate(
        ({}, {"affinity": "none"}, {"servers": ["127.0.0.1:1", "127.0.0.1:2"]})
    ):
        config = tmp_path / f"{number}{kind.suffix}"
        config.write_text(configuration(kind.mode, **values))
        command = [program, *kind.check, str(config)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_body_that_the_server_takes_is_not_too_large_for_envoy() -> None:
    """It reads all of it, to see where it goes."""
    limit = re.compile(r"per_connection_buffer_limit_bytes: (\d+)")
    for given, least in ((None, 2_000_000), (50_000_000, 50_000_000)):
        options = {} if given is None else {"payload-limit": given}
        [found] = limit.findall(configuration("envoy", options))
        assert int(found) > least
    assert "tune.bufsize 65536\n" in configuration("haproxy", bodyBytes=65536)
