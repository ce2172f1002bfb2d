"""Bytes that are dear to parse are parsed at a pace, in order, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from penstock_router.api.bodies import Bodies
from penstock_router.api.paced_parsing import ParsingPace
from router.api.conftest import beside_only

HEAD = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"inputs":"%s"}' % b" a b".join(b"%d" % number for number in range(2_000))
# each byte in a chunk of its own
CHUNKED = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_all_that_is_dear_shares_a_part_of_the_time() -> None:
    pace = ParsingPace()
    assert [pace.wait(0.5, now) for now in (0.0, 0.0, 15.0, 100.0)] == [10.0, 20.0, 15.0, 10.0]


@beside_only
async def test_what_came_in_pieces_is_whole(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    bodies: list[bytes] = []
    read = Bodies.read

    def wait(self: ParsingPace, seconds: float, now: float) -> float:
        waits.append(seconds)
        return 0.0

    async def noting(self: Bodies, request: web.Request) -> bytes:
        bodies.append(await read(self, request))
        return bodies[-1]

    monkeypatch.setattr(ParsingPace, "wait", wait)
    monkeypatch.setattr(Bodies, "read", noting)
    client = await serve(payload_limit=1_000_000)
    await client.raw(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + CHUNKED)
    assert bodies == [BODY]
    assert len(waits) > 1


@beside_only
async def test_who_waits_is_not_read_from_and_others_are(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    def wait(self: ParsingPace, seconds: float, now: float) -> float:
        reached.set()
        return 3600.0

    monkeypatch.setattr(ParsingPace, "wait", wait)
    client = await serve(payload_limit=1_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED)
    await asyncio.wait_for(reached.wait(), 60)
    monkeypatch.undo()
    assert (await client.raw(HEALTH)).startswith(b"HTTP/1.1 200")
    assert not reader._buffer and not reader.at_eof()  # type: ignore[attr-defined]
    for one in client.runner.server.connections:  # none of which hears that its client is gone
        one.abort()
    writer.close()
