"""Server-sent events, written straight to the transport.

aiohttp's own `write` costs a task switch for every event. Here `push` only collects: what a turn
of the event loop produced goes out as one HTTP chunk at its end, in one system call (7 to 10 us).
The head travels with the first events and the end of the body with the last ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar, cast

from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter

from penstock_router.api.connection import Connection
from penstock_router.api.sequence_group import SequenceGroup
from penstock_router.api.service import SERVICE

T = TypeVar("T")

KEEP_ALIVE = b":\n\n"
CLOCK_SECONDS = 0.002  # an alarm may ring so early: uvloop rounds to milliseconds
FULL_BYTES = 1024 * 1024  # more than this unread, and the reader is too slow; see `connection` too


class SlowReader(Exception):
    """The client does not read what it asked for."""


class _Response(web.StreamResponse):
    _send_headers_immediately = False  # aiohttp then sends them with the first write


class EventStream:
    """The events of one response. Collects until `serve` has sent the head."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._response = _Response(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                **headers,
            }
        )
        self._chunked = request.version >= HttpVersion11
        self._keepalive = request.app[SERVICE].config.stream_keepalive  # seconds; 0: none
        self._transport: asyncio.WriteTransport | None = None
        self._buffer: list[bytes] = []
        self._due = False
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._last_write = self._loop.time()
        self._group: SequenceGroup | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def started(self) -> bool:
        """The head of the response is sent, so its status cannot change any more."""
        return self._transport is not None

    def push(self, event: bytes) -> None:
        """Send an event at the end of this turn of the event loop."""
        self._buffer.append(event)
        if self._due:
            return
        self._due = True
        if self._transport is not None:
            self._loop.call_soon(self._flush)
        else:
            self._begin()

    def replace_last(self, old: bytes, new: bytes) -> bool:
        """Send `new` instead of the last event if that is `old` and still here."""
        if self._buffer and self._buffer[-1] is old:
            self._buffer[-1] = new
            return True
        return False

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, which comes before anything can run; the client is kept company."""
        task = asyncio.create_task(work)
        self._watch()
        try:
            await asyncio.wait((task, self._begun), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._start()
            return await task
        finally:
            task.cancel()
            if self._alarm is not None:
                self._alarm.cancel()

    async def serve(self, group: SequenceGroup) -> None:
        """Send events until all sequences of `group` have ended; `close` sends the last of them.

        The head waits for the first event, so that an error before it has its own HTTP status.
        Raises ApiError when a sequence fails, SlowReader when the client does not read.
        """
        self._group = group
        group.ended.add_done_callback(self._begin)
        self._watch()
        try:
            await self._begun
            if not self._due and group.ended.done():
                group.ended.result()
            await self._start()
            await group.ended
        finally:
            group.ended.remove_done_callback(self._begin)  # which knows this stream
            if self._alarm is not None:
                self._alarm.cancel()

    async def close(self) -> None:
        """Send what is left and end the response, as soon as the client reads it."""
        await self._start()
        await self._response.write_eof(self._take())

    def abort(self) -> web.StreamResponse:
        """Drop the connection."""
        self._buffer.clear()
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response

    @property
    def response(self) -> web.StreamResponse:
        return self._response

    async def _start(self) -> None:
        if self._transport is None:
            writer = cast(StreamWriter, await self._response.prepare(self._request))
            transport = self._request.transport
            if transport is None:
                raise ConnectionResetError("the client is gone")
            self._transport = transport
            if isinstance(self._request.protocol, Connection):
                self._request.protocol.say_something = self._keep_alive
            await writer.write(self._take(), drain=False)

    def _begin(self, ended: asyncio.Future[None] | None = None) -> None:
        if not self._begun.done():
            self._begun.set_result(None)

    def _watch(self) -> None:
        """Say something at times to a client, or a proxy, that would hear nothing."""
        if not self._keepalive:
            return
        silent = self._loop.time() - self._last_write
        if silent >= self._keepalive - CLOCK_SECONDS:
            self._keep_alive()
            silent = 0.0
        self._alarm = self._loop.call_later(self._keepalive - silent, self._watch)

    def _keep_alive(self) -> None:
        self.push(KEEP_ALIVE)

    def _take(self) -> bytes:
        """Everything collected, which the caller writes."""
        self._due = False
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._last_write = self._loop.time()
        return data

    def _flush(self) -> None:
        transport, group = self._transport, self._group
        if not self._due or transport is None or (group is not None and group.ended.done()):
            return  # written already, or `close` is about to
        data = self._take()
        if transport.is_closing():
            return
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if transport.get_write_buffer_size() > FULL_BYTES and group is not None:
            group.ended.set_exception(SlowReader())
