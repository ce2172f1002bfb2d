"""Requests hidden in others: with a real balancer in front, which reads heads in its own way, and
without one. Whatever is answered was a request to both: the balancer has given it its name."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

HIDDEN = b"GET /info HTTP/1.1\r\nHost: x\r\nx-request-id: hidden\r\n\r\n"
BODY = b'{"inputs":"hi"}'
OWN = b"GET /info HTTP/1.1\r\nHost: x\r\nx-request-id: own\r\nConnection: close\r\n\r\n"
ID = re.compile(rb"x-request-id: ([\w.-]+)\r\n", re.IGNORECASE)
BALANCED = b"balanced-"  # how the names of the balancer begin
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
LAST = b"0\r\n\r\n"
CONFIG = """
global
  maxconn 100
defaults
  mode http
  timeout connect 60s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  http-request set-header x-request-id balanced-%[uuid()]
  default_backend b
backend b
  server s 127.0.0.1:{server}
"""

# lines of the head that say how long the body is, and the body; `%d` is the length of all of it
WAYS: dict[str, tuple[bytes, bytes]] = {
    "CL short": (b"Content-Length: 15", BODY + HIDDEN),
    "two CL": (b"Content-Length: 15\r\nContent-Length: %d", BODY + HIDDEN),
    "CL list": (b"Content-Length: 15, %d", BODY + HIDDEN),
    "CL plus": (b"Content-Length: +15", BODY + HIDDEN),
    "CL hex": (b"Content-Length: 0xf", BODY + HIDDEN),
    "CL blank": (b"Content-Length : 15", BODY + HIDDEN),
    "CL negative": (b"Content-Length: -15", BODY + HIDDEN),
    "CL and TE": (b"Content-Length: %d\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + HIDDEN),
    "TE and CL": (b"Transfer-Encoding: chunked\r\nContent-Length: 4", CHUNK + LAST + HIDDEN),
    "TE blank": (b"Content-Length: %d\r\nTransfer-Encoding : chunked", b"0\r\n\r\n" + HIDDEN),
    "TE tab": (b"Content-Length: %d\r\nTransfer-Encoding:\tchunked", b"0\r\n\r\n" + HIDDEN),
    "TE x": (b"Content-Length: %d\r\nTransfer-Encoding: xchunked", b"0\r\n\r\n" + HIDDEN),
    "TE twice": (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"0\r\n\r\n" + HIDDEN,
    ),
    "TE folded": (b"Content-Length: %d\r\nTransfer-Encoding:\r\n chunked", b"0\r\n\r\n" + HIDDEN),
    "TE quoted": (b'Content-Length: %d\r\nTransfer-Encoding: "chunked"', b"0\r\n\r\n" + HIDDEN),
    "TE nul": (b"Content-Length: %d\r\nTransfer-Encoding: chunked\0", b"0\r\n\r\n" + HIDDEN),
    "TE by lf": (b"Content-Length: %d\nTransfer-Encoding: chunked", b"0\r\n\r\n" + HIDDEN),
    "chunk negative": (b"Transfer-Encoding: chunked", b"-1\r\n\r\n" + HIDDEN),
    "chunk huge": (b"Transfer-Encoding: chunked", b"ffffffffffffffff1\r\n" + HIDDEN),
    "chunk by lf": (b"Transfer-Encoding: chunked", b"f\n" + BODY + b"\n0\n\n" + HIDDEN),
    "chunk ext": (b"Transfer-Encoding: chunked", b"f;a\nb\r\n" + BODY + b"\r\n" + LAST + HIDDEN),
    "chunk short": (b"Transfer-Encoding: chunked", b"2\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN),
}  # fmt: skip
# those whose body ends before HIDDEN by every reading: two requests in a row, and two answers
TWO = {"CL short"}


def request(way: str) -> bytes:
    lines, body = WAYS[way]
    lines = lines % len(body) if b"%d" in lines else lines
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head + lines + b"\r\n\r\n" + body


@pytest.fixture
def place() -> str:
    return "beside"


@pytest.fixture(params=["no balancer", "haproxy"])
async def port(request: Any, serve: Any, tmp_path: Path) -> AsyncIterator[int]:
    client = await serve(header_timeout=0.5, idle_timeout=0.5)
    if request.param == "no balancer":
        yield client.port
        return
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    (tmp_path / "haproxy.cfg").write_text(CONFIG.format(port=free, server=client.port))
    process = await asyncio.create_subprocess_exec(program, "-db", "-f", tmp_path / "haproxy.cfg")
    try:
        async with asyncio.timeout(60):
            while not await listens(free):
                await asyncio.sleep(0.05)
        yield free
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def named(request: Any) -> bytes:
    """How the names of requests that were answered begin: made by the server, or the balancer."""
    return BALANCED if "haproxy" in request.node.callspec.id else b""


def answered(text: bytes) -> list[bytes]:
    """The names of requests that have answers."""
    return ID.findall(text)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def exchange(port: int, data: bytes) -> bytes:
    """Send, end, and read until the other side has ended too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def two_answers(port: int, data: bytes) -> bytes:
    """Send and read until there are two answers, or the other side has ended. The balancer may
    leave out the second where the client has ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = b""
    try:
        writer.write(data)
        async with asyncio.timeout(60):
            while len(answered(text)) < 2 and (part := await reader.read(65536)):
                text += part
    finally:
        writer.close()
    return text


async def test_one_answer_to_one_request(port: int, named: bytes) -> None:
    for way in WAYS.keys() - TWO:
        ids = answered(await exchange(port, request(way)))
        assert b"hidden" not in ids and all(one.startswith(named) for one in ids), (way, ids)
        assert len(ids) <= (1 if named != BALANCED else 2), (way, ids)
        # on a connection that the balancer may have used
        text = await exchange(port, OWN)
        assert text.startswith(b"HTTP/1.1 200") and len(answered(text)) == 1, (way, text)
        assert b"max_total_tokens" in text


async def test_two_requests_have_two_answers(port: int, named: bytes) -> None:
    """So that one answer is no sign of a connection that is always closed."""
    for way in TWO:
        ids = answered(await two_answers(port, request(way)))
        assert len(ids) == 2
        assert ids[1] == b"hidden" or (named == BALANCED and ids[1].startswith(BALANCED))
