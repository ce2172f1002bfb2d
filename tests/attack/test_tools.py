"""The campaign itself: whom it attacks, and that it sees what falls short."""

from __future__ import annotations

import asyncio

import pytest
from tests.attack.__main__ import chosen
from tests.attack.attacks import ATTACKS
from tests.attack.shots import SECRET, Shot, raw
from tests.attack.target import Target, loopback
from tests.attack.watch import quantile
from tests.attack.wire import Seen

REFUSAL = Seen("422", {"server": "penstock"}, b'{"error": "too long"}')


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000", "http://localhost:1", "http://[::1]:9"])
def test_servers_of_this_machine_are_attacked(url: str) -> None:
    assert loopback(url).url == url.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:3000",
        "http://0.0.0.0:3000",
        "http://example.org",
        "https://127.0.0.1:3000",
        "127.0.0.1:3000",
        "http://127.0.0.1.example.org/",
        "http://[::ffff:10.0.0.1]:3000",
    ],
)
def test_others_are_not(url: str) -> None:
    with pytest.raises(ValueError):
        loopback(url)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (REFUSAL, None),
        (Seen("429", REFUSAL.headers, REFUSAL.body), None),
        (Seen("200"), "200, not"),
        (Seen("500", REFUSAL.headers, REFUSAL.body), "500, not"),
        (Seen("hang"), "hang, not"),
        (Seen("422", {"server": "penstock"}, b"no"), "without a sentence"),
        (Seen("422", {"server": "Python/3.11 aiohttp/3.14.5"}, REFUSAL.body), "Server header"),
        (Seen("422", {}, b'{"error": "bad header: %s"}' % SECRET), "credential"),
    ],
)
def test_what_falls_short_is_seen(seen: Seen, fault: str | None) -> None:
    shot = raw("x", b"", "422")
    found = shot.fault(seen, crowded=True)
    assert found is None if fault is None else found is not None and fault in found


def test_alone_nothing_may_be_busy() -> None:
    assert raw("x", b"", "422").fault(Seen("429", {}, REFUSAL.body), crowded=False)


def test_names_of_attacks_are_their_own() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert len({shot.name for shot in attack.shots}) == len(attack.shots), attack.id
    assert [attack.id for attack in chosen(["C1-m", "L5"])] == ["C1-messages", "L5"]


def test_quantiles() -> None:
    assert quantile((), 0.5) == float("inf")
    assert quantile((3.0, 1.0, 2.0), 0.5) == 2.0
    assert quantile((1.0, 9.0), 0.99) == 9.0


async def fire(shot: Shot, handler: object) -> list[Seen]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)  # type: ignore[arg-type]
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await shot.fire(Target("127.0.0.1", port, None))


async def test_an_answer_is_read() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 No\r\nServer: penstock\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n1\r\n/\r\n0\r\n\r\n")
        assert line == b"GET /\r\n"
        writer.close()

    (seen,) = await fire(raw("x", b"GET /\r\n"), handler)
    assert seen == Seen("422", {"server": "penstock", "transfer-encoding": "chunked"}, b"GET /")


async def test_a_connection_that_breaks_is_closed() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    (seen,) = await fire(raw("x", b"GET /\r\n"), handler)
    assert seen.end == "closed"
