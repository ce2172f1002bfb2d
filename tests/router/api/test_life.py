"""How requests end: overload, failure, disconnect, slow readers, drain. Nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from typing import Any

import aiohttp
import pytest

from penstock_router.api import connection, connections, half_closed, sse
from penstock_router.api.service import SERVICE
from penstock_router.request import GenerationFailed, ShuttingDown
from router.api.conftest import beside_only
from support.fake_engine import FakeEngine

HI = [{"role": "user", "content": "hi"}]
ROUTES = [
    ("/generate", {"inputs": "hi"}),
    ("/generate_stream", {"inputs": "hi"}),
    ("/", {"inputs": "hi", "stream": True}),
    ("/v1/chat/completions", {"messages": HI}),
    ("/v1/chat/completions", {"messages": HI, "stream": True}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/completions", {"prompt": ["hi", "you"], "stream": True}),
    ("/vertex", {"instances": [{"inputs": "hi"}]}),
]


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves is asked at once whether it has."""
    monkeypatch.setattr(half_closed, "PROBE_AFTER", 0.02)


@pytest.mark.parametrize(("route", "body"), ROUTES)
async def test_overload(
    serve: Any, route: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permit: 429 at once and without a look at the prompt; afterwards all is as before."""
    client = await serve(FakeEngine(hold=True))
    running = [asyncio.create_task(client.post("/generate", {"inputs": "hi"})) for _ in range(16)]
    await until(lambda: len(client.engine.jobs) == 16)
    text = client.app[SERVICE].text
    encodings = []
    monkeypatch.setattr(text, "run", lambda work: encodings.append(work))
    async with client.session.post(client.url + route, json=body) as response:
        assert response.status == 429
        assert response.headers["Retry-After"]
        assert (await response.json())["error_type"] == "overloaded"
    assert not encodings
    monkeypatch.undo()
    invalid = await client.post("/generate", {"inputs": ""})
    assert invalid[0] == 422  # a request that can never run is told so even now
    client.engine.script = [10, 2]
    client.engine.release()
    assert [status for status, _ in await asyncio.gather(*running)] == [200] * 16
    assert await client.count('tgi_request_failure{err="overloaded"}') == 1
    await client.quiet()


@pytest.mark.parametrize(("route", "body"), ROUTES)
async def test_failure_before_the_first_token(serve: Any, route: str, body: Any) -> None:
    """Even a stream has the real HTTP status as long as nothing was sent."""
    client = await serve(FakeEngine(fail_after=0, failure=GenerationFailed("shard 1 is gone")))
    status, answer = await client.post(route, body)
    assert status == 424 and answer["error_type"] == "generation"
    assert "Request failed during generation: shard 1 is gone" in json.dumps(answer)
    client.engine.refuse = GenerationFailed("no shards")
    assert (await client.post(route, body))[0] == 424
    assert await client.count('tgi_request_failure{err="generation"}') == 2
    assert await client.count("tgi_request_success") == 0
    await client.quiet()


@pytest.mark.parametrize(
    ("failure", "kind", "status"),
    [
        (GenerationFailed("x"), "generation", 424),
        (ShuttingDown("x"), "incomplete_generation", 500),
    ],
)
async def test_failure_in_a_stream(serve: Any, failure: Any, kind: str, status: int) -> None:
    """The last event says so, in the shape that the route's clients know; no [DONE]."""
    client = await serve(FakeEngine(fail_after=2, failure=failure))
    for route, body in ROUTES:
        answer, text = await client.stream(route, body)
        if "stream" not in route and not body.get("stream"):
            assert answer == status
            continue
        assert answer == 200
        last = json.loads(text.split("\n\n")[-2].removeprefix("data:"))
        assert last["error_type"] == kind
        if route.startswith("/v1"):
            assert last["error"]["http_status_code"] == status and last["error"]["message"]
        else:
            assert isinstance(last["error"], str)
        assert "[DONE]" not in text
    assert await client.count("tgi_request_success") == 0
    await client.quiet()


@pytest.mark.parametrize(("route", "body"), ROUTES)
@pytest.mark.parametrize("tokens", [0, 3])
async def test_disconnect(serve: Any, route: str, body: dict[str, Any], tokens: int) -> None:
    """A client that leaves, before the first token or among them, frees everything."""
    client = await serve(FakeEngine(hold=True))
    data = json.dumps(body).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (route.encode(), len(data), data)
    )
    await until(lambda: client.engine.jobs)
    for _ in range(tokens):
        for job in client.engine.jobs:
            client.engine._step(job)
        await asyncio.sleep(0.005)
    writer.close()
    await client.quiet()
    assert all(job.cancelled for job in client.engine.jobs)
    assert await client.count("penstock_client_disconnects_total") == 1
    assert await client.count('tgi_request_failure{err="dropped"}') == 1


async def test_who_leaves_as_the_head_goes_is_no_fault(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the look at the connection and the first write to it."""
    client = await serve(FakeEngine(script=[10, 11, 12]))
    start = sse.EventStream._start

    async def leaving(stream: sse.EventStream) -> None:
        stream._request.transport.close()  # type: ignore[union-attr]
        await start(stream)

    monkeypatch.setattr(sse.EventStream, "_start", leaving)
    for path in ("/generate_stream", "/v1/completions"):
        body = {"inputs": "hi", "prompt": "hi", "stream": True}
        with pytest.raises(aiohttp.ClientError):
            await client.stream(path, body)
    await client.quiet()
    assert await client.count('tgi_request_failure{err="dropped"}') == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_disconnect_at_any_moment(serve: Any) -> None:
    """Many clients that leave at many points of their requests."""
    client = await serve(FakeEngine(script=[10, 11, 12]))

    async def leave(after: float, stream: bool) -> None:
        path = "/generate_stream" if stream else "/generate"
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(after):
                await client.stream(path, {"inputs": "hi", "parameters": {"max_new_tokens": 90}})

    for round_ in range(30):
        await asyncio.gather(*(leave(0.0005 * (round_ + i), bool(i % 2)) for i in range(8)))
    await client.quiet()


def reading_nothing(port: int, body: bytes, path: bytes) -> socket.socket:
    """A connection that sends a request and never reads, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path, len(body), body)
    )
    return sock


@pytest.mark.parametrize("bound", ["FULL_BYTES", "STUCK_SECONDS"])
async def test_slow_reader(serve: Any, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """It is cut at a bound of bytes or of time; others do not notice."""
    from support.fake_engine import limits

    if bound == "STUCK_SECONDS":
        monkeypatch.setattr(sse, "FULL_BYTES", 10**9)
        monkeypatch.setattr(connection, "STUCK_SECONDS", 0.3)
        monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    room = limits(max_total_tokens=2_000_000)
    client = await serve(FakeEngine(limits=room, tokens_per_turn=50))
    body = b'{"inputs":"hi","parameters":{"max_new_tokens":1000000}}'
    slow = reading_nothing(client.port, body, b"/generate_stream")
    await until(lambda: client.engine.jobs)
    short = {"inputs": "hi", "parameters": {"max_new_tokens": 5}}
    status, _ = await client.stream("/generate_stream", short)
    assert status == 200
    await until(lambda: client.engine.jobs[0].cancelled)
    await client.quiet()
    assert await client.count("penstock_slow_readers_total") == 1
    assert await client.count('tgi_request_failure{err="dropped"}') == 1
    slow.close()


async def test_reader_that_stops_at_the_end(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens are made, but the client reads none of them: the connection is dropped."""
    from support.fake_engine import limits

    monkeypatch.setattr(sse, "FULL_BYTES", 10**9)
    monkeypatch.setattr(connection, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    client = await serve(FakeEngine(limits=limits(max_total_tokens=100_000), tokens_per_turn=10**6))
    body = b'{"inputs":"hi","parameters":{"max_new_tokens":90000}}'
    slow = reading_nothing(client.port, body, b"/generate_stream")
    await until(lambda: client.engine.jobs)
    await client.quiet()
    assert await client.count("penstock_slow_readers_total") == 1
    slow.close()


async def test_drain(serve: Any) -> None:
    """New requests are turned away, those that run end as they should."""
    client = await serve(FakeEngine(hold=True, script=[10, 2]))
    assert (await client.get("/health"))[0] == 200
    running = asyncio.create_task(client.stream("/generate_stream", {"inputs": "hi"}))
    whole = asyncio.create_task(
        client.session.post(client.url + "/generate", json={"inputs": "hi"})
    )
    await until(lambda: len(client.engine.jobs) == 2)
    client.drain()
    for route, body in ROUTES:
        async with client.session.post(client.url + route, json=body) as response:
            assert response.status == 503
            assert response.headers["Connection"] == "close"
            assert response.headers["Retry-After"]
        # said before anything is read, so that who is told goes elsewhere at once
        broken = {"data": b"{", "headers": {"Content-Type": "application/json"}}
        async with client.session.post(client.url + route, **broken) as response:
            assert response.status == 503
    for path in ("/health", "/ping", "/"):
        status, body = await client.get(path)
        assert (status, json.loads(body)) == (
            503,
            {"error": "unhealthy", "error_type": "healthcheck"},
        )
    async with client.session.get(client.url + "/info") as response:
        assert response.headers["Connection"] == "close"
    client.engine.release()
    status, text = await running
    assert status == 200 and '"generated_text":"' in text
    async with await whole as response:  # nothing comes behind it on this connection
        assert response.status == 200 and response.headers["Connection"] == "close"


@beside_only
async def test_health_follows_the_engine(serve: Any) -> None:
    client = await serve(FakeEngine(trouble="no answer from shard 1"))
    status, body = await client.get("/health")
    assert status == 503 and b'"unhealthy: no answer from shard 1"' in body
    client.engine.trouble = ""
    assert (await client.get("/health"))[0] == 200


async def test_metrics_count_once(serve: Any) -> None:
    client = await serve(FakeEngine(script=[10, 2]))
    for route, body in ROUTES:
        await client.stream(route, body)
    assert await client.count("tgi_request_count") == len(ROUTES)
    assert await client.count("tgi_request_success") == len(ROUTES)
    assert await client.count("tgi_request_duration_count") == len(ROUTES)
    assert await client.count("tgi_request_validation_duration_count") == len(ROUTES)
    assert await client.count("tgi_request_mean_time_per_token_duration_count") == len(ROUTES) + 1
    status, body = await client.get("/metrics")
    assert status == 200 and b"process_resident_memory_bytes" in body


async def test_one_line_for_a_success(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Times, tokens, seed and number; never the prompt or the text."""
    client = await serve(FakeEngine(script=[10, 2]))
    caplog.set_level(logging.INFO, "penstock_router.api")
    body = {"inputs": "canary prompt", "parameters": {"seed": 5, "do_sample": True}}
    await client.post("/generate", body, headers={"x-request-id": "r1"})
    [record] = [r for r in caplog.records if r.name == "penstock_router.api"]
    assert record.getMessage() == "Success"
    fields = record.fields  # type: ignore[attr-defined]
    assert fields["request_id"] == "r1" and fields["seed"] == 5
    assert fields["prompt_tokens"] == len(client.engine.requests[0].prompt)
    assert fields["generated_tokens"] == 2
    names = {"total_time", "validation_time", "queue_time", "inference_time", "time_per_token"}
    assert names <= fields.keys()
    assert "canary" not in json.dumps(fields)


async def test_a_fault_of_ours_is_500(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await serve()

    async def broken(*args: object) -> None:
        raise RuntimeError("/usr/lib/secret")

    monkeypatch.setattr(client.text, "encode", broken)
    status, body = await client.post("/generate", {"inputs": "hi"})
    monkeypatch.undo()
    assert (status, body) == (500, {"error": "Internal error", "error_type": "internal"})
    assert await client.count('tgi_request_failure{err="incomplete"}') == 1
    await client.quiet()
