"""A client that has sent the end of what it sends (FIN): does it still read, or is it gone?

Both look alike until something is written. So `100 Continue`, which HTTP/1.1 clients pass over, or
what a stream says in its pauses is written now and then: who is gone answers with a reset.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web

if TYPE_CHECKING:
    from penstock_router.api.connection import Connection

PROBE_AFTER = 0.5  # seconds: short requests are answered before the first probe
PROBE_AGAIN = 15.0
LOOK_FIRST, LOOK_LAST = 0.01, 1.0  # seconds between two looks for a reset, doubled each time
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
TCP_CLOSE = 7  # linux/tcp_states.h: nobody is at the other end


def may_go_on(connection: Connection, request: web.BaseRequest) -> bool:
    """It is complete, and there is something that its client would pass over."""
    can_ask = connection.say_something is not None or request.version >= HttpVersion11
    return request.content.is_eof() and can_ask


class HalfClosed:
    """Probes one connection from such an end on, until it is lost; aborts it where nobody is."""

    def __init__(self, connection: Connection, wire: asyncio.Transport, crowded: bool) -> None:
        """crowded: other requests wait behind the one that runs, so it is asked at once."""
        self._connection = connection
        self._wire: asyncio.Transport | None = wire  # until it is lost
        self._loop = asyncio.get_running_loop()
        seconds = 0 if crowded else PROBE_AFTER
        self._timer = self._loop.call_later(seconds, self._probe, LOOK_FIRST)

    def stop(self) -> None:
        """The connection is lost."""
        self._wire = None
        self._timer.cancel()

    def _probe(self, look: float) -> None:
        """Write something that a client passes over, where nothing of the answer is on its way."""
        connection, wire = self._connection, self._wire
        if wire is None:
            return
        if connection.running is not None and connection.say_something is not None:
            connection.say_something()
        elif connection.running is not None and not connection.answering:
            wire.write(PROBE)
        self._look_for_reset(look, self._loop.time() + PROBE_AGAIN)

    def _look_for_reset(self, seconds: float, probe_at: float) -> None:
        """A connection that is not read from is not told that its other end is gone."""
        wire = self._wire
        if wire is None:
            return
        sock = wire.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:  # which tells who writes at once
            look = PROBE_AGAIN
            self._timer = self._loop.call_later(look, self._probe, look)
            return
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE:
            return self._connection.abort()
        if self._loop.time() >= probe_at:
            return self._probe(LOOK_FIRST)
        self._timer = self._loop.call_later(
            seconds, self._look_for_reset, min(2 * seconds, LOOK_LAST), probe_at
        )
