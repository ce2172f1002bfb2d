"""What clients do to their connections: leave, shut one side, flood, say nothing, speak no HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import struct
from typing import Any

import pytest
from aiohttp import web

from penstock_router.api import bodies, connection, connections, half_closed
from penstock_router.api.app import make_scrape_runner
from penstock_router.api.half_closed import PROBE
from penstock_router.metrics import Metrics
from router.api.conftest import beside_only
from support.fake_engine import FakeEngine, limits

JSON = "Content-Type: application/json\r\n"


def post(path: str, body: bytes, version: str = "1.1", head: str = JSON) -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


GENERATE = post("/generate", b'{"inputs":"hi"}')
STREAM = post("/generate_stream", b'{"inputs":"hi"}')
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
FLOODS = {
    "40 requests": HEALTH * 40,
    "40 that generate": GENERATE * 40,
    "4000 requests": HEALTH * 4000,
    "a body": post("/generate", b" " * 1_500_000),
    "no HTTP": b"\0" * 500_000,
}


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def connect(client: Any, data: bytes = b"") -> tuple[asyncio.StreamReader, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(data)
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server ends the connection."""
    return await asyncio.wait_for(reader.read(), 60)


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("request_", [GENERATE, STREAM], ids=["unstreamed", "streamed"])
@pytest.mark.parametrize("together", [True, False])
async def test_who_leaves_behind_a_flood_is_noticed(
    serve: Any, flood: str, request_: bytes, together: bool
) -> None:
    """M1: with nothing generated meanwhile, so that no write could find out."""
    if flood == "no HTTP" and together:
        pytest.skip("aiohttp refuses all that it reads at once")
    client = await serve(FakeEngine(hold=True))
    _, writer = await connect(client, request_ + (FLOODS[flood] if together else b""))
    await until(lambda: client.engine.jobs)
    if not together:
        writer.write(FLOODS[flood])
    writer.close()
    async with asyncio.timeout(60):
        await client.quiet()
    assert all(job.cancelled for job in client.engine.jobs)


@pytest.mark.parametrize("request_", [GENERATE, STREAM], ids=["unstreamed", "streamed"])
async def test_who_resets_is_noticed(serve: Any, request_: bytes) -> None:
    client = await serve(FakeEngine(hold=True))
    _, writer = await connect(client, request_)
    await until(lambda: client.engine.jobs)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()
    await client.quiet()


async def test_a_flood_without_end_is_cut(serve: Any) -> None:
    """What comes behind a request is thrown away, up to a bound."""
    client = await serve(FakeEngine(hold=True))
    reader, writer = await connect(client, GENERATE)
    await until(lambda: client.engine.jobs)
    with pytest.raises((ConnectionError, TimeoutError)):
        async with asyncio.timeout(60):
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
    await client.quiet()


async def test_requests_in_a_row_are_answered(serve: Any) -> None:
    """As many as may wait; behind the last of them the connection ends."""
    client = await serve(FakeEngine(script=[10, 2]))
    reader, writer = await connect(client, GENERATE * 5 + STREAM * 5)
    for _ in range(10):
        await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200 OK\r\n"), 60)
        await asyncio.wait_for(reader.readuntil(b'"generated_text":"'), 60)
    writer.close()
    reader, writer = await connect(client, HEALTH * 100)
    text = await answer(reader)
    assert 32 <= text.count(b"HTTP/1.1 200 OK") <= 40 and text.count(b"Connection: close") == 1


@pytest.mark.parametrize("request_", [GENERATE, STREAM], ids=["unstreamed", "streamed"])
@pytest.mark.parametrize("late", [False, True])
async def test_who_shuts_its_side_is_answered(
    serve: Any, monkeypatch: pytest.MonkeyPatch, request_: bytes, late: bool
) -> None:
    """n5: one whose answer takes longer is asked whether it is there by what it passes over."""
    monkeypatch.setattr(half_closed, "PROBE_AFTER", 0.1)
    client = await serve(FakeEngine(hold=late, script=[10, 2]))
    reader, writer = await connect(client, request_)
    writer.write_eof()
    if late:
        await until(lambda: client.engine.jobs)
        await asyncio.sleep(0.4)
        client.engine.release()
    text = await answer(reader)
    assert text.startswith(PROBE) == late
    assert text.removeprefix(PROBE).startswith(b"HTTP/1.1 200 OK") and b"generated_text" in text
    assert await client.count("penstock_client_disconnects_total") == 0
    await client.quiet()


@pytest.mark.parametrize("request_", [GENERATE, STREAM], ids=["unstreamed", "streamed"])
@pytest.mark.parametrize("tokens", [0, 2])
async def test_who_shuts_its_side_and_leaves_is_noticed(
    serve: Any, monkeypatch: pytest.MonkeyPatch, request_: bytes, tokens: int
) -> None:
    """M1, n5: at first both look alike."""
    monkeypatch.setattr(half_closed, "PROBE_AFTER", 0.1)
    monkeypatch.setattr(half_closed, "PROBE_AGAIN", 0.2)
    client = await serve(FakeEngine(hold=True))
    reader, writer = await connect(client, request_)
    writer.write_eof()
    await until(lambda: client.engine.jobs)
    for _ in range(tokens):
        client.engine._step(client.engine.jobs[0])
    await asyncio.sleep(0.3)
    assert client.engine.live == 1
    writer.close()
    await client.quiet()
    assert await client.count("penstock_client_disconnects_total") == 1


async def test_requests_in_a_row_and_then_one_side_shut(serve: Any) -> None:
    client = await serve(FakeEngine(script=[10, 2]))
    reader, writer = await connect(client, GENERATE + HEALTH + STREAM + GENERATE)
    writer.write_eof()
    text = await answer(reader)
    assert text.count(b"HTTP/1.1 200 OK") == 4 and text.count(b'"generated_text":"') == 3
    assert text.replace(PROBE, b"").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("request_", [post("/generate", b'{"inputs":"hi"}', "1.0"), GENERATE[:-3]])
async def test_whose_end_is_seen_and_cannot_be_asked_is_gone(serve: Any, request_: bytes) -> None:
    """HTTP/1.0 knows no `100 Continue`; a body that ends early will never be complete."""
    client = await serve(FakeEngine(hold=True))
    reader, writer = await connect(client, request_)
    await asyncio.sleep(0.05)
    writer.write_eof()
    assert await answer(reader) == b""
    await client.quiet()


MALFORMED = {
    "secret": b"GET /info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\x01\r\n\r\n",
    "nul": b"GET /info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\x00\r\n\r\n",
    "name": b"GET /info HTTP/1.1\r\nHost: x\r\nSE CRET: x\r\n\r\n",
    "host twice": b"GET /info HTTP/1.1\r\nHost: SECRET\r\nHost: x\r\n\r\n",
    "no host": b"GET /SECRET HTTP/1.1\r\n\r\n",
    "long": b"GET /info HTTP/1.1\r\nHost: x\r\nx-key: SECRET" + b"x" * 9000 + b"\r\n\r\n",
    "long target": b"GET /SECRET" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "target": b"GET SECRET HTTP/1.1\r\nHost: x\r\n\r\n",
    "version": b"GET /SECRET HTTP/9.9\r\nHost: x\r\n\r\n",
    "no version": b"GET /SECRET\r\n\r\n",
    "old version": b"GET /SECRET HTTP/0.9\r\nHost: x\r\n\r\n",
    "new version": b"GET /SECRET HTTP/2.0\r\nHost: x\r\n\r\n",
    "method": b"SECRET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: SECRET\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"
    b"\r\nx: SECRET\r\n\r\n",
    "tls": b"\x16\x03\x01SECRET\r\n\r\n",
    "expect": b"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: SECRET\r\n\r\n",
    "expect nowhere": b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: SECRET\r\n\r\n",
    "expect no text": b"GET / HTTP/1.0\r\nHost: x\r\nExpect: \xffSECRET\r\n\r\n",
    "chunk": b"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + JSON.encode()
    + b"Transfer-Encoding: chunked\r\n\r\nSECRET\r\n\r\n",
    "bad host": b"GET /info HTTP/1.1\r\nConnection: close\r\nHost: SE/CRET\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_no_http(serve: Any, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """M5: our error, one line without the value, and nothing about what serves."""
    client = await serve()
    caplog.set_level(logging.DEBUG)
    text = await client.raw(MALFORMED[case])
    head, _, body = text.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.[01] 400 Bad Request\r\n", head), text
    assert b"Server: penstock\r\n" in head + b"\r\n"
    assert b"application/json" in head and b"x-request-id" in head
    error = json.loads(body)
    assert error["error_type"] == "bad_request" and isinstance(error["error"], str)
    assert b"SECRET" not in text and b"CRET" not in text
    lines = [r for r in caplog.records if r.name != "asyncio"]
    assert len(lines) == 1 and lines[0].levelno in (logging.INFO, logging.WARNING)
    assert "CRET" not in f"{lines[0].getMessage()} {lines[0].__dict__}"
    assert not lines[0].exc_info


async def test_lines_about_malformed_requests_are_few(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """M5: the log of a flood is bounded, and says how many lines it lacks."""
    client = await serve()
    caplog.set_level(logging.INFO)
    for _ in range(20):
        await client.raw(MALFORMED["secret"])
    assert len([r for r in caplog.records if "malformed" in r.getMessage()]) == 1


@beside_only
async def test_a_fault_in_the_server_itself(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve()
    monkeypatch.setattr(type(client.engine), "trouble", property(lambda self: 1 / 0))
    text = await client.raw(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 500") and b"Server: penstock" in text
    assert json.loads(text.partition(b"\r\n\r\n")[2])["error_type"] == "internal"


async def test_a_head_that_does_not_come(serve: Any) -> None:
    """L3: byte by byte or not at all."""
    client = await serve(header_timeout=0.3)
    reader, writer = await connect(client)

    async def trickle() -> None:
        for byte in b"GET /health HTTP/1.1\r\nHost: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(trickle())
    async with asyncio.timeout(60):
        text = await reader.read()
    assert text.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.3 seconds" in text
    task.cancel()


async def test_who_says_nothing_is_let_go(serve: Any) -> None:
    """Before a first request and behind one; what runs is not idle, however long."""
    client = await serve(FakeEngine(hold=True, script=[10, 2]), idle_timeout=0.3)
    busy, writer = await connect(client, GENERATE)
    await until(lambda: client.engine.jobs)
    silent, _ = await connect(client)
    between, _ = await connect(client, HEALTH)
    assert await answer(silent) == b""
    assert (await answer(between)).startswith(b"HTTP/1.1 200")
    client.engine.release()
    assert (await asyncio.wait_for(busy.readline(), 60)) == b"HTTP/1.1 200 OK\r\n"


async def test_heads_have_bounds(serve: Any) -> None:
    """S16: the number of headers, the size of each, and that of the path."""
    client = await serve(max_headers=20, max_header_size=2000)
    for more, path, status in (
        ("X-%d: x\r\n", "/health", 400),
        ("X: " + "x" * 3000 + "\r\n", "/health", 400),
        ("x" * 3000 + ": x\r\n", "/health", 400),
        ("", "/health?" + "x" * 3000, 400),
        ("X: " + "x" * 1900 + "\r\n", "/health?" + "x" * 1800, 200),
    ):
        lines = "".join(more % n for n in range(40)) if "%d" in more else more
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"
        text = await client.raw(head.encode())
        assert int(text.split(b" ", 2)[1]) == status, (more[:9], path[:9], text)
    client = await serve()  # the defaults
    many = "".join(f"X-{n}: x\r\n" for n in range(200))
    text = await client.raw(f"GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n".encode())
    assert text.split(b" ", 2)[1] == b"400"


async def test_large_bodies_are_bounded(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """M2: beyond the bound 429, small requests pass, and the others end with their time."""
    monkeypatch.setattr(bodies, "STALL_SECONDS", 2.0)
    client = await serve(FakeEngine(script=[10, 2]), payload_limit=100_000)
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}".encode()
    length = head + b"Content-Length: 99000\r\n\r\n" + b" " * 98_000
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n15F90\r\n" + b" " * 0x15F90 + b"\r\n"
    opened = [await connect(client, (length, chunked)[i % 2]) for i in range(40)]
    await asyncio.sleep(0.2)
    small = {"inputs": "hi"}
    assert [(await client.post("/generate", small))[0] for _ in range(3)] == [200] * 3
    texts = await asyncio.gather(*(answer(reader) for reader, _ in opened))
    refused = [text for text in texts if text.startswith(b"HTTP/1.1 429")]
    late = [text for text in texts if text.startswith(b"HTTP/1.1 408")]
    assert len(refused) + len(late) == 40 and 16 <= len(late) <= 18
    assert all(b"Retry-After" in text and b"overloaded" in text for text in refused)
    large = {"inputs": "x" * 90_000}
    assert (await client.post("/generate", large))[0] == 422  # there is room again


async def test_L5_who_reads_nothing_of_an_answer(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is counted, and does not wait for ever."""
    monkeypatch.setattr(connection, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.1)
    fake = FakeEngine(limits=limits(max_total_tokens=200_000), tokens_per_turn=10**6)
    client = await serve(fake)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", client.port))
    parameters = {"max_new_tokens": 100_000, "details": True}
    sock.sendall(post("/generate", json.dumps({"inputs": "hi", "parameters": parameters}).encode()))
    async with asyncio.timeout(60):
        while not await client.count("penstock_unsent_bytes"):
            await asyncio.sleep(0.02)
        while not await client.count("penstock_slow_readers_total"):
            await asyncio.sleep(0.02)
        while await client.count("penstock_unsent_bytes"):
            await asyncio.sleep(0.02)
    sock.close()


async def test_connections_of_a_client(serve: Any) -> None:
    """L3: an idle one makes room, a busy one does not, and other clients are not concerned."""
    client = await serve(FakeEngine(hold=True), max_connections_per_client=4)
    idle = [await connect(client) for _ in range(4)]
    busy = [await connect(client, GENERATE) for _ in range(3)]
    await until(lambda: len(client.engine.jobs) == 3)
    assert [await answer(reader) for reader, _ in idle[:3]] == [b"", b"", b""]
    busy.append(await connect(client, GENERATE))
    await until(lambda: len(client.engine.jobs) == 4)
    reader, writer = await connect(client, HEALTH)
    text = await answer(reader)
    assert text.startswith(b"HTTP/1.1 429") and b"Retry-After: 1" in text
    assert b"at most 4 (`--max-connections-per-client`)" in text
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", client.port, local_addr=("127.0.0.2", 0)
    )
    writer.write(HEALTH)
    assert (await asyncio.wait_for(reader.readline(), 60)) == b"HTTP/1.1 200 OK\r\n"
    for _, writer in busy:
        writer.close()
    await client.quiet()
    reader, writer = await connect(client, HEALTH)
    assert (await asyncio.wait_for(reader.readline(), 60)) == b"HTTP/1.1 200 OK\r\n"


@beside_only
async def test_connections_of_many_clients(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are descriptors for, whoever they are of."""
    monkeypatch.setattr(connections, "room", lambda: 6)  # one of which for who is refused
    client = await serve(FakeEngine(hold=True))

    async def come(number: int, data: bytes) -> tuple[asyncio.StreamReader, Any]:
        own = (f"127.0.0.{number}", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port, local_addr=own)
        writer.write(data)
        return reader, writer

    busy = [await come(2 + number, GENERATE) for number in range(5)]
    await until(lambda: len(client.engine.jobs) == 5)
    reader, _ = await come(9, HEALTH)
    text = await answer(reader)
    assert text.startswith(b"HTTP/1.1 429") and b"there are descriptors for 5" in text
    for _, writer in busy:
        writer.close()
    await client.quiet()
    reader, _ = await come(9, HEALTH)
    assert (await asyncio.wait_for(reader.readline(), 60)) == b"HTTP/1.1 200 OK\r\n"


async def test_connections_of_a_trusted_proxy(serve: Any) -> None:
    client = await serve(max_connections_per_client=4, trusted_proxies=("127.0.0.0/30",))
    opened = [await connect(client, HEALTH) for _ in range(12)]
    for reader, _ in opened:
        assert (await asyncio.wait_for(reader.readline(), 60)) == b"HTTP/1.1 200 OK\r\n"


@beside_only
async def test_requests_of_a_client(serve: Any) -> None:
    """A cap of its own, by address, or by what a trusted proxy says."""
    fake = FakeEngine(hold=True)
    client = await serve(fake, max_requests_per_client=2, trusted_proxies=("127.0.0.1", "10.0.0.9"))

    def ask(forwarded: str) -> Any:
        headers = {"X-Forwarded-For": forwarded}
        return client.post("/generate", {"inputs": "hi"}, headers=headers)

    running = [asyncio.create_task(ask("192.0.2.1")) for _ in range(2)]
    await until(lambda: len(fake.jobs) == 2)
    for same in ("192.0.2.1", "6.6.6.6, 192.0.2.1", "192.0.2.1, 10.0.0.9", "192.0.2.1:99"):
        status, body = await ask(same)
        assert status == 429 and "at most 2 (`--max-requests-per-client`)" in body["error"]
    running.append(asyncio.create_task(ask("192.0.2.1, 192.0.2.2")))
    await until(lambda: len(fake.jobs) == 3)
    fake.script = [10, 2]
    fake.release()
    assert [status for status, _ in await asyncio.gather(*running)] == [200] * 3
    assert (await ask("192.0.2.1"))[0] == 200


@pytest.mark.parametrize("host", ["a/b", "a?b", "a#b", "a b", "a@b", "a\\b", "<b>"])
async def test_the_host_header(serve: Any, host: str) -> None:
    """T: it holds nothing that could be taken for a part of a URL."""
    client = await serve()
    head = f"Connection: close\r\n{JSON}"
    for request in (
        f"POST /generate HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: 15\r\n\r\n",
        f"GET /health HTTP/1.1\r\nHost: {host}\r\n{head}\r\n",
    ):
        text = await client.raw(request.encode() + b'{"inputs":"hi"}' * ("POST" in request))
        assert text.startswith(b"HTTP/1.1 400") and b"The Host header is not valid" in text
    assert not client.engine.jobs
    for fine in ("x", "localhost:3000", "[::1]:80", "a-b.example", "a_b"):
        text = await client.raw(
            HEALTH.replace(b"Host: x", f"Host: {fine}\r\nConnection: close".encode())
        )
        assert text.startswith(b"HTTP/1.1 200"), fine


async def test_who_drains_reads_nothing(serve: Any) -> None:
    """T: what comes is turned away before its body is read, let alone checked."""
    client = await serve()
    client.drain()
    await until(lambda: client.app is not None)
    await asyncio.sleep(0.05)
    for body in (b'{"inputs":""}', b"{", b'{"colour":1}'):
        text = await client.raw(post("/generate", body, head=f"Connection: close\r\n{JSON}"))
        assert text.startswith(b"HTTP/1.1 503") and b"shutting_down" in text
    reader, writer = await connect(client, post("/generate", b"x" * 100)[:-90])
    text = await asyncio.wait_for(reader.readuntil(b"shutting_down"), 60)
    assert text.startswith(b"HTTP/1.1 503")


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        (
            "/generate",
            {"inputs": "hi", "parameters": {"top_k": 0}},
            422,
            "`top_k` must be strictly positive",
        ),
        ("/v1/chat/completions", {"messages": []}, 422, "`messages` cannot be empty"),
        ("/tokenize", {"inputs": ""}, 422, "`inputs` cannot be empty"),
        ("/chat_tokenize", {"messages": []}, 422, "`messages` cannot be empty"),
        ("/nowhere", {}, 404, "There is no such path"),
        ("/info", {}, 405, "This path answers to GET, HEAD only"),
    ],
)
async def test_a_refused_request_has_a_line(
    serve: Any,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    status: int,
    reason: str,
) -> None:
    """n2: with method, status, and the sentence."""
    client = await serve()
    caplog.set_level(logging.INFO, "penstock_router.api")
    assert (await client.post(path, body, headers={"x-request-id": "r1"}))[0] == status
    [record] = [r for r in caplog.records if r.name == "penstock_router.api"]
    fields = record.fields  # type: ignore[attr-defined]
    assert record.getMessage() == "Failure" and record.levelno == logging.INFO
    assert reason in fields["reason"]
    expected = {"request_id": "r1", "method": "POST", "route": path, "status": status}
    assert expected.items() <= fields.items()


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/tokenize", "/chat_tokenize"])
async def test_an_answered_request_has_a_line(
    serve: Any, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """n2: its times with six digits."""
    client = await serve(FakeEngine(script=[10, 2]))
    caplog.set_level(logging.INFO, "penstock_router.api")
    messages = {"messages": [{"role": "user", "content": "hi"}]}
    await client.stream(path, messages if "chat" in path else {"inputs": "hi"})
    [record] = [r for r in caplog.records if r.name == "penstock_router.api"]
    fields = record.fields  # type: ignore[attr-defined]
    assert record.getMessage() == "Success" and fields["status"] == 200
    times = [value for name, value in fields.items() if "time" in name]
    assert times and all(value == round(value, 6) for value in times)


async def test_the_port_for_metrics_alone() -> None:
    """M5: its errors are ours as well."""
    metrics = Metrics(64, 96)
    runner = make_scrape_runner(metrics)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    async def ask(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        text = await answer(reader)
        writer.close()
        return text

    head = b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert b"\ntgi_request_count 0\n" in await ask(b"GET /metrics " + head)
    for request, status in ((b"GET /health " + head, 404), (b"POST /metrics " + head, 405)):
        text = await ask(request)
        assert text.startswith(b"HTTP/1.1 %d" % status) and b"Server: penstock\r\n" in text
        assert json.loads(text.partition(b"\r\n\r\n")[2])["error_type"]
    assert b"Server: penstock" in await ask(MALFORMED["secret"])
    await runner.cleanup()


def alive() -> list[connection.Connection]:
    return [it for it in gc.get_objects() if isinstance(it, connection.Connection)]


@beside_only
@pytest.mark.parametrize("case", ["generate", "stream", "secret", "long", "flood", "left"])
async def test_a_connection_leaves_no_cycle(serve: Any, case: str) -> None:
    """What it has read is gone with it, not at the next collection, which is far."""
    requests = {"generate": GENERATE, "stream": STREAM, **MALFORMED}
    requests |= {"flood": GENERATE + HEALTH * 100, "left": STREAM}
    client = await serve(FakeEngine(script=[10, 2], hold=case == "left"))
    gc.collect()
    others = alive()  # of other tests
    gc.disable()
    try:
        for _ in range(3):
            reader, writer = await connect(client, requests[case])
            await asyncio.sleep(0.05)
            writer.close()
            del reader, writer
        await client.quiet()
        client.engine.jobs.clear()  # which know who listens
        await asyncio.sleep(0.1)
        assert len(alive()) <= len(others)
    finally:
        gc.enable()


@beside_only
@pytest.mark.parametrize("begun", [b"", GENERATE[:30]], ids=["connected", "half a head"])
async def test_a_request_on_its_way_is_answered_before_the_end(
    serve: Any, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody knows whether it began, and no balancer may send it again."""
    monkeypatch.setattr(connections, "YOUNG_SECONDS", 60.0)
    client = await serve(FakeEngine())
    server = client.runner.server
    reader, writer = await connect(client, begun)
    await until(lambda: any(one.expects(60.0) for one in server.connections))
    client.drain()
    ending = asyncio.create_task(client.runner.cleanup())
    await asyncio.sleep(0)  # it has begun
    writer.write(GENERATE[len(begun) :])
    assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
    await ending


@beside_only
async def test_nobody_waits_for_who_has_nothing_to_ask(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that have had their requests, and such as were made long ago."""
    client = await serve(FakeEngine())
    reader, writer = await connect(client, HEALTH)
    await reader.readuntil(b"\r\n\r\n")
    await connect(client)
    server = client.runner.server
    await until(lambda: len(server.connections) == 2)
    monkeypatch.setattr(connections, "YOUNG_SECONDS", 0.0)
    assert not any(one.expects(0.0) for one in server.connections)
    assert [one.expects(3600.0) for one in server.connections] == [False, True]
