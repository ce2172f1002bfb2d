"""The leanest HTTP client that can time a stream: keep what arrives and when, parse it afterwards.

While a load runs, a read costs one clock call and one append (about 1 µs), so that the client does
not compete with a server on the same cores. `events` takes the recorded reads apart when the run
is over: HTTP/1.1 chunks, then server-sent events. So the times are those at which the bytes came,
whatever parsing takes.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

LONGEST_HEAD = 64 * 1024  # bytes
END_OF_CHUNKS = b"\r\n0\r\n\r\n"  # JSON escapes CR and LF, so no event holds this


@dataclass(slots=True)
class Exchange:
    """One request and what came back. Times are seconds of time.monotonic()."""

    started: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)  # of the body
    status: int = 0
    chunked: bool = False
    failure: str | None = None  # the connection broke, or the run was cut

    def body(self) -> bytes:
        """The body as sent, chunk framing removed."""
        if not self.chunked:
            return b"".join(data for _, data in self.reads)
        return b"".join(piece for _, piece in self._pieces())

    def _pieces(self) -> Iterator[tuple[float, bytes]]:
        """The contents of the chunks, each with the time at which it was complete."""
        buffer = b""
        for when, data in self.reads:
            buffer += data
            start = 0
            while (line := buffer.find(b"\r\n", start)) >= 0:
                size = int(buffer[start:line].split(b";")[0], 16)
                end = line + 2 + size + 2
                if size == 0 or end > len(buffer):
                    break
                yield when, buffer[line + 2 : end - 2]
                start = end
            buffer = buffer[start:]

    def events(self) -> Iterator[tuple[float, bytes]]:
        """The data of each server-sent event, with the time at which its last byte came."""
        text = b""
        for when, piece in self._pieces() if self.chunked else self.reads:
            text += piece
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n")
            *complete, text = text.split(b"\n\n")
            for event in complete:
                data = [line[5:].strip() for line in event.split(b"\n") if line[:5] == b"data:"]
                if data:
                    yield when, b"\n".join(data)


class Connection(asyncio.Protocol):
    """A kept-alive HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._done: asyncio.Future[None] | None = None
        self._head = b""
        self._left = -1  # bytes of the body to come; -1: unknown, the framing or the end tells
        self._tail = b""
        self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.closed = cast(asyncio.Transport, transport), False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        exchange = self._exchange
        if exchange is not None and self._done is not None and not self._done.done():
            until_end = exchange.status and not exchange.chunked and self._left < 0
            if error is not None or not until_end:
                exchange.failure = f"connection lost: {error or 'closed by the server'}"
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.status == 0:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                if len(self._head) > LONGEST_HEAD:
                    self._refuse(exchange, "the head of the answer does not end")
                return
            try:
                self._read_head(exchange, head)
            except (ValueError, IndexError):
                self._refuse(exchange, "the answer is not HTTP")
                return
        if data:
            exchange.reads.append((now, data))
        if self._left >= 0:
            self._left -= len(data)
            ended = self._left <= 0
        elif not exchange.chunked:
            ended = False  # the end of the connection is its end
        else:
            self._tail = (self._tail + data)[-len(END_OF_CHUNKS) :] if len(data) < 7 else data[-7:]
            ended = self._tail.endswith(END_OF_CHUNKS) or data == END_OF_CHUNKS[2:]
        if ended and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _refuse(self, exchange: Exchange, failure: str) -> None:
        exchange.failure = failure
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
        self.close()

    def _read_head(self, exchange: Exchange, head: bytes) -> None:
        status, *lines = head.split(b"\r\n")
        exchange.status = int(status.split()[1])
        headers = dict(line.lower().split(b":", 1) for line in lines if b":" in line)
        exchange.chunked = b"chunked" in headers.get(b"transfer-encoding", b"")
        length = headers.get(b"content-length")
        self._left = -1 if exchange.chunked or length is None else int(length)

    async def exchange(self, request: bytes, exchange: Exchange) -> None:
        """Sends a whole request and waits for the whole answer, recorded in `exchange`."""
        assert self._transport is not None
        self._exchange, self._head, self._left, self._tail = exchange, b"", -1, b""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._done
        finally:
            self._exchange = None

    def close(self) -> None:
        """Drops the connection, with whatever runs on it."""
        if self._transport is not None:
            self._transport.close()
        self.closed = True


async def connect(host: str, port: int, tls: ssl.SSLContext | None = None) -> Connection:
    """Opens a connection. Raises OSError when nothing listens."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port, ssl=tls)
    return connection


def http_request(
    host: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> bytes:
    """The bytes of a request: GET without a body, POST of JSON with one."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
