"""Rows of connections and stopped processes, against real servers with the demo model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server import SMALL, Server, running_server

JSON = "Content-Type: application/json\r\n"
LONG = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 1500, "ignore_eos": True}}
MIDDLE = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 300, "ignore_eos": True}}
SHORT = {"inputs": "Tell me a story.", "parameters": {"max_new_tokens": 5}}
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["0", "2"], ids=["one process", "two fronts"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    arguments = ("--device", "cpu", "--http-processes", request.param, *SMALL)
    with running_server(folder, *arguments) as server:
        yield server


def post(path: str, body: object, head: str = "") -> bytes:
    data = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}{head}Content-Length: {len(data)}\r\n\r\n"
    ).encode() + data


def connect(server: Server, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.settimeout(60)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    sock.sendall(data)
    return sock


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(server.url + path, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sample(server: Server, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", get(server, "/metrics")[1], re.MULTILINE)
    assert match, name
    return float(match[1])


def until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def lines(server: Server, word: str) -> list[str]:
    return [line for line in server.log.splitlines() if word in line]


FLOODS = {
    "M1-40-requests": post("/generate", SHORT) * 40,
    "M1-body": post("/generate", {"inputs": "x" * 1_500_000}),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_who_leaves_behind_a_flood_is_cancelled(server: Server, flood: str, path: str) -> None:
    """Long before its 1500 tokens would be generated."""
    before = sample(server, "penstock_client_disconnects_total")
    sock = connect(server, post(path, LONG))
    until(lambda: sample(server, "penstock_running_sequences") == 1, 60)
    sock.sendall(FLOODS[flood])
    sock.close()
    until(lambda: sample(server, "penstock_running_sequences") == 0, 60)
    assert sample(server, "penstock_client_disconnects_total") == before + 1


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
def test_n5_who_shuts_its_side_is_answered(server: Server, path: str) -> None:
    body = {"prompt": "Tell me", "max_tokens": 5} if "v1" in path else SHORT
    sock = connect(server, post(path, body))
    sock.shutdown(socket.SHUT_WR)
    text = read_all(sock)
    assert b"HTTP/1.1 200 OK\r\n" in text and (b"generated_text" in text or b"choices" in text)


def test_n5_a_client_that_closes_is_cancelled(server: Server) -> None:
    sock = connect(server, post("/generate", LONG))
    until(lambda: sample(server, "penstock_running_sequences") == 1, 60)
    sock.close()
    until(lambda: sample(server, "penstock_running_sequences") == 0, 60)


def test_M2_bodies_that_stop(server: Server) -> None:
    """150 connections with 1.9 MB of a body: most are told so at once, and cost no memory."""
    processes = server.children("router") + server.children("front")
    before = sum(process.memory_info().rss for process in processes)
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 1900000\r\n\r\n".encode()
    opened = []
    for _ in range(150):
        sock = connect(server, head)
        sock.setblocking(False)
        opened.append(sock)

    async def send(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(sock, b" " * 1_890_000)

    async def send_all() -> None:
        await asyncio.wait_for(asyncio.gather(*map(send, opened)), 60)

    asyncio.run(send_all())
    begun = time.monotonic()
    sock = connect(server, post("/generate", SHORT))
    assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - begun < 60
    grown = sum(process.memory_info().rss for process in processes) - before
    assert grown < 200 * 2**20, f"{grown >> 20} MiB"
    refused = 0
    for sock in opened:
        try:
            refused += sock.recv(100).startswith(b"HTTP/1.1 429")
        except BlockingIOError:
            pass
        except OSError:
            refused += 1
        sock.close()
    assert refused > 75  # half of them: some are still being read, at their pace


def test_M5_a_secret_in_a_broken_head(server: Server) -> None:
    for _ in range(20):
        sock = connect(
            server, b"GET /info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\x01\r\n\r\n"
        )
        text = read_all(sock)
        head, _, body = text.partition(b"\r\n\r\n")
        assert b" 400 " in head and json.loads(body)["error_type"] == "bad_request"
        assert b"aiohttp" not in text and b"Python" not in text and b"SECRET" not in text
    until(lambda: lines(server, "malformed request"), 60)
    assert len(lines(server, "malformed request")) <= 2
    assert "SECRET" not in server.log and "Traceback" not in server.log


def test_n2_a_line_says_why(server: Server) -> None:
    body = {"inputs": "hi", "parameters": {"top_k": -1}}
    for path in ("/generate", "/tokenize"):
        read_all(
            connect(server, post(path, body, f"Connection: close\r\nx-request-id: n2{path[1]}\r\n"))
        )
    until(lambda: lines(server, "n2g") and lines(server, "n2t"), 60)
    [line] = lines(server, "n2g")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z  INFO ", line)
    assert "method=POST route=/generate status=422" in line
    assert "`parameters.top_k`" in line or "`top_k`" in line


def test_L3_few_descriptors(tmp_path: Path) -> None:
    """150 idle connections and `ulimit -n 64`: few lines, and the service goes on."""
    arguments = ("--device", "cpu", "--http-processes", "2", *SMALL)
    with running_server(tmp_path, *arguments, descriptors=64) as server:
        opened = [connect(server, HEALTH[: 10 * (i % 2)]) for i in range(150)]
        for _ in range(5):
            assert get(server, "/health")[0] == 200
        sock = connect(server, post("/generate", SHORT))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        for sock in opened:
            sock.close()
        said = lines(server, "too many") + lines(server, "few descriptors")
        assert 1 <= len(said) <= 6 and "Traceback" not in server.log, server.log
        assert server.terminate() == 0


def test_L5_who_reads_nothing_is_counted(server: Server) -> None:
    """What the kernel does not take waits in the server, where a look every 5 s finds it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 32)
    until(lambda: sample(server, "penstock_unsent_bytes") > 0, 60)
    assert sample(server, "penstock_unsent_bytes") < 2**20
    sock.close()


def test_L7_a_shard_that_fails_while_the_server_ends(tmp_path: Path) -> None:
    """The last line names it, though everything was about to end anyway."""
    with running_server(tmp_path, "--device", "cpu", "--num-shard", "2", *SMALL) as server:
        sock = connect(server, post("/generate_stream", LONG, "Connection: close\r\n"))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        first, second = server.children("shard")
        for shard in (first, second):
            shard.send_signal(signal.SIGSTOP)  # so that nothing ends before
        server.process.send_signal(signal.SIGTERM)
        until(lambda: lines(server, "SIGTERM: shutting down"), 60)
        second.send_signal(signal.SIGKILL)
        assert server.process.wait(120) == 1
        assert "shard 1 was killed by SIGKILL" in server.last_line, server.log
        assert b'"error_type":"generation"' in read_all(sock)


# One that a shard may wait in for another.
COLLECTIVES = ("all_reduce", "all_gather", "gather", "broadcast")


@pytest.fixture(scope="module")
def stoppable(tmp_path_factory: Any) -> Iterator[Server]:
    """A server whose processes are stopped, in the order of the tests; the last one ends it."""
    arguments = ("--device", "cpu", "--num-shard", "2", "--http-processes", "2", *SMALL)
    folder: Path = tmp_path_factory.mktemp("stoppable")
    server = Server([*arguments, "--step-timeout", "2"], folder, None)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_M4_a_shard_that_is_stopped_while_it_loads(stoppable: Server) -> None:
    until(lambda: len(stoppable.children("shard")) == 2, 60)
    shard = stoppable.children("shard")[1]
    shard.send_signal(signal.SIGSTOP)
    until(lambda: lines(stoppable, f"shard 1 (process {shard.pid}) is stopped"), 60)
    shard.send_signal(signal.SIGCONT)
    stoppable.wait_ready()
    assert lines(stoppable, "shard 1 goes on")


def test_M4_a_shard_that_is_stopped(stoppable: Server) -> None:
    """Readiness goes within seconds, with the reason, and comes back."""
    stoppable.wait_ready()
    shard = stoppable.children("shard")[1]
    shard.send_signal(signal.SIGSTOP)
    until(lambda: get(stoppable, "/health")[0] == 503, 60)
    body = get(stoppable, "/health")[1]
    assert json.loads(body)["error"] == "unhealthy: no answer from shard 1"
    shard.send_signal(signal.SIGCONT)
    until(lambda: get(stoppable, "/health")[0] == 200, 60)
    sock = connect(stoppable, post("/generate", SHORT))
    assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
    said = lines(stoppable, "no answer from shard 1"), lines(stoppable, "ready again")
    assert all(said)


def test_M4_C1b_a_router_that_is_stopped(stoppable: Server) -> None:
    """It is said, and when it goes on it blames nobody for the time that it was away."""
    stoppable.wait_ready()
    sock = connect(stoppable, post("/generate_stream", MIDDLE, "Connection: close\r\n"))
    sock.settimeout(60)
    assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
    router = stoppable.children("router")[0]
    router.send_signal(signal.SIGSTOP)
    until(lambda: lines(stoppable, f"router (process {router.pid}) is stopped"), 60)
    time.sleep(2)
    router.send_signal(signal.SIGCONT)
    assert b'"generated_text":"' in read_all(sock)
    until(lambda: lines(stoppable, "router goes on"), 60)
    assert get(stoppable, "/health")[0] == 200


def test_C1b_a_shard_that_says_nothing_is_found(stoppable: Server) -> None:
    stoppable.wait_ready()
    sock = connect(stoppable, post("/generate_stream", LONG, "Connection: close\r\n"))
    sock.recv(1000)
    stoppable.children("shard")[0].send_signal(signal.SIGSTOP)
    assert stoppable.process.wait(120) == 1
    assert b"no result of step" in read_all(sock)
    assert "no result of step" in stoppable.last_line
    assert lines(stoppable, "shard 1: Thread"), "no stack of the shard that waits for the other"
    assert any(lines(stoppable, f"in {name}") for name in COLLECTIVES)
