"""Large bodies become objects one at a time."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from penstock_router.api import body_pace
from penstock_router.api.bodies import PACE_BYTES, SMALL_BYTES, Bodies
from penstock_router.api.body_pace import AHEAD_SECONDS, Pace
from penstock_router.api.no_numbers import place_of_no_number
from penstock_router.api.service import SERVICE
from router.api.conftest import beside_only


@pytest.mark.parametrize(("size", "between"), [(SMALL_BYTES, False), (SMALL_BYTES + 1, True)])
async def test_others_are_served_between_large_bodies(size: int, between: bool) -> None:
    bodies = Bodies(2_000_000)
    happened: list[str] = []

    async def parse() -> None:
        async with bodies.turn(size):
            happened.append("body")

    async def other() -> None:
        happened.append("other")

    def later() -> None:
        tasks.append(asyncio.create_task(other()))

    tasks = [asyncio.create_task(parse()) for _ in range(2)]
    asyncio.get_running_loop().call_soon(later)  # comes while the first body is parsed
    await asyncio.gather(*tasks)
    await asyncio.gather(*tasks)  # the other one is among them by now
    assert happened == (["body", "other", "body"] if between else ["body", "body", "other"])


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/chat/completions", '{"messages": [], "logit_bias": {"5": NaN}}', "logit_bias.5"),
        ("/v1/completions", '{"prompt": "x", "min_p": Infinity}', "min_p"),
        ("/generate", '{"inputs": "x", "parameters": {"top_p": -Infinity}}', "parameters.top_p"),
        ("/generate", '{"text": "x", "sampling_params": [{"top_p": 1e999}]}',
         "sampling_params[0].top_p"),
        ("/v1/messages", '{"temperature": NaN}', "temperature"),
        ("/tokenize", '{"prompt": NaN}', "prompt"),
    ],
)  # fmt: skip
async def test_what_is_no_number_is_named(serve: Any, path: str, body: str, place: str) -> None:
    client = await serve()
    headers = {"content-type": "application/json"}
    url = client.url + path
    async with client.session.post(url, data=body, headers=headers) as answer:
        assert answer.status == 422
        assert f"`{place}` must be a finite number" in await answer.text()
    async with client.session.post(url, data=body + "}", headers=headers) as answer:
        assert answer.status == 400
        assert "not valid JSON" in await answer.text()


def test_a_place_is_found_whatever_stands_around_it() -> None:
    deep = "[" * 500 + "NaN" + "]" * 500
    place, value = place_of_no_number(deep.encode()) or ("", "")
    assert place == "".join(["[0]"] * 43)[:128] and value == "NaN"
    assert place_of_no_number(b"[" * 100_000) is None
    assert place_of_no_number(b'{"a": 1e999, "b": NaN}') == ("a", "Infinity")
    assert place_of_no_number(json.dumps({"k" * 999: float("nan")}).encode()) == ("k" * 128, "NaN")
    assert place_of_no_number(b'{"a": "NaN", "b": }') is None


async def test_large_bodies_share_one_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and however fast they come: by a clock that stands still."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = Pace(PACE_BYTES)
    parts = 64
    for _ in range(parts):
        await pace.keep(256 * 1024)
    assert max(waits) == pytest.approx(parts * 256 * 1024 / PACE_BYTES)
    assert len(waits) == parts - int(AHEAD_SECONDS * PACE_BYTES / (256 * 1024))


POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def refused(port: int, sent: int, length: int) -> tuple[Any, Any]:
    """A connection whose body was answered before its end, of which so many bytes were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + b"Content-Length: %d\r\n\r\n" % length + b"7" * sent)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429"), head
    await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
    return reader, writer


@beside_only
async def test_nothing_is_kept_of_bodies_that_were_refused(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for the pace, and whatever their clients have sent meanwhile."""
    rests: list[Any] = []
    wires: list[Any] = []
    waiting: list[int] = []
    gate = asyncio.Event()
    throw_away = Pace.throw_away

    async def noting(self: Pace, rest: Any, client: Any) -> None:
        rests.append(rest)
        wires.append(client.transport)
        await throw_away(self, rest, client)

    async def keep(self: Pace, size: int) -> None:
        waiting.append(size)
        await gate.wait()

    monkeypatch.setattr(body_pace, "THROW_AWAY_SECONDS", 600.0)
    monkeypatch.setattr(Pace, "throw_away", noting)
    monkeypatch.setattr(Pace, "keep", keep)
    client = await serve(payload_limit=2_000_000)
    client.app[SERVICE].bodies.free = 0
    ones = [await refused(client.port, 1_000_000, 1_990_000) for _ in range(12)]
    async with asyncio.timeout(60):
        while len(waiting) < len(ones):
            await asyncio.sleep(0.01)
    assert [rest._size for rest in rests] == [0] * len(ones)
    assert not any(wire.is_reading() for wire in wires)
    gate.set()
    async with asyncio.timeout(60):
        while any(rest.total_bytes < 1_000_000 for rest in rests):
            await asyncio.sleep(0.01)
    for _, writer in ones:
        writer.close()


@beside_only
async def test_a_connection_goes_on_behind_a_refused_body(serve: Any) -> None:
    client = await serve(payload_limit=2_000_000)
    client.app[SERVICE].bodies.free = 0
    reader, writer = await refused(client.port, 900_000, 1_000_000)
    writer.write(b"7" * 100_000 + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
