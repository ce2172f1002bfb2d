"""HTTP by hand: libraries are too polite to send what an attacker sends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.attack.target import Target

PATIENCE = 20.0  # seconds without an answer that count as a hang
BODY_LIMIT = 4 << 20  # bytes of an answer that are kept

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Seen:
    """What came back. `end` is the status, or how it ended without one:

    closed: the server closed; hang: nothing within PATIENCE; refused: nobody listens;
    left: the attacker went away, as it meant to.
    """

    end: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


LEFT = Seen("left")
CLOSED = Seen("closed")
REFUSED = Seen("refused")
HANG = Seen("hang")


@asynccontextmanager
async def connection(target: Target, deaf: bool = False) -> AsyncIterator[Connection]:
    """An open connection from the attackers' address; gone without ceremony afterwards.

    deaf: it reads nothing, and the kernel keeps as little for it as it can.
    Raises OSError when nobody listens.
    """
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if target.source is not None:
            sock.bind((target.source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    if deaf:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(target: Target, data: bytes, patience: float = PATIENCE) -> Seen:
    """Send these bytes at once and read the first answer, if it comes within so many seconds."""
    try:
        async with connection(target) as (reader, writer):
            writer.write(data)  # not awaited: a server may answer before it has read everything
            return await answer(reader, patience)
    except ConnectionRefusedError:
        return REFUSED
    except ConnectionError:
        return CLOSED


async def answer(reader: asyncio.StreamReader, patience: float = PATIENCE) -> Seen:
    """The next answer on a connection, if it comes within so many seconds."""
    try:
        async with asyncio.timeout(patience):
            return await _answer(reader)
    except TimeoutError:
        return HANG
    except (asyncio.IncompleteReadError, ConnectionError):
        return CLOSED


async def _answer(reader: asyncio.StreamReader) -> Seen:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.rstrip().split("\r\n")
        status = status_line.split(" ")[1]
        if not status.startswith("1"):
            break
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Seen(status, headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(min(int(headers["content-length"]), BODY_LIMIT))
    if "chunked" not in headers.get("transfer-encoding", ""):
        return b""
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunk = await reader.readexactly(size + 2)
        if len(body) < BODY_LIMIT:
            body += chunk[:-2]
    await reader.readline()
    return bytes(body)


def request(
    target: Target,
    path: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    headers: bytes = b"",
) -> bytes:
    """The bytes of an ordinary request; `headers` are whole lines that are added to it."""
    method = method or ("GET" if body is None else "POST")
    head = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method.encode(), path.encode(), target.authority)
    if body is not None:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + headers + b"\r\n" + (body or b"")
