"""Messages over a socket between two processes of the router.

gRPC takes the event loop 60 us a message where this takes 10, and it needs a place to listen at;
these are sockets that were born in pairs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from google.protobuf.message import Message

PREFIX = 4  # bytes of a message's length
MOST_BYTES = 2**31 - 1  # of a message; protobuf writes no longer ones
BEAT_SECONDS = 1.0  # between two messages of a front, if only to say that it lives


class BadFrame(ValueError):
    """A message that makes no sense: the other side is broken."""


class Frames(asyncio.Protocol):
    """Both directions of one socket.

    receive is called with each message as bytes; lost once, when the other side is gone or has
    broken the protocol.
    """

    def __init__(
        self,
        receive: Callable[[bytes], None],
        lost: Callable[[], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """most_bytes: of a message that the other side may send."""
        self._receive = receive
        self._lost = lost
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def send(self, message: Message) -> None:
        """Send a message; what was sent before it arrives before it."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(message))

    @property
    def unread(self) -> int:
        """Bytes that the other side has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send what is left, and close the socket."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket at once: the other side has broken the protocol."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= PREFIX:
            body = start + PREFIX
            end = body + int.from_bytes(buffer[start:body], "little")
            if end - body > self._most_bytes:
                return self.abort()
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                message = bytes(view[body:end])
            self._receive(message)
            start = end
        del buffer[:start]


def frame(message: Message) -> bytes:
    """A message behind its length."""
    data = message.SerializeToString()
    return len(data).to_bytes(PREFIX, "little") + data
