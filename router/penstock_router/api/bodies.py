"""Bodies of requests on their way into memory: how many bytes of them there may be at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
from aiohttp import web

from penstock_router.api.body_pace import Pace
from penstock_router.api.errors import ApiError, Kind

BODY_SECONDS = 60.0  # for a body to arrive
STALL_SECONDS = 15.0  # for its next bytes
SMALL_BYTES = 64 * 1024  # what a connection may hold without asking
SHORT_BYTES = 16 * 1024  # what is checked on the event loop
SHARE = 16  # large bodies at a time, of the largest size
# What a process reads of large bodies in a second. Each byte costs the event loop about a
# nanosecond or two, so they have a quarter of it at the most.
PACE_BYTES = 128 * 1024 * 1024


BODY_BYTES = web.RequestKey("body_bytes", int)  # of a body that was read
T = TypeVar("T")


class Bodies:
    """The bytes of large bodies that arrive. Not waited for: who finds no room is told so."""

    def __init__(self, payload_limit: int) -> None:
        """payload_limit: bytes of the largest body."""
        self._payload_limit = payload_limit
        self._turn = asyncio.Lock()
        self._aside = asyncio.Lock()
        self._pace = Pace(PACE_BYTES)
        self.free = SHARE * payload_limit

    async def read(self, request: web.Request) -> bytes:
        """The whole body. Raises ApiError when it is late, too large, or broken, or there is no
        room for it now."""
        content = request.content
        lease = _Lease(self)
        try:
            lease.extend(request.content_length or 0)
            if content.is_eof():  # as most are
                data = content.read_nowait()
                self._check(len(data))
                return data
            return await self._read(content, lease)
        except web.RequestPayloadError:
            raise ApiError(Kind.BAD_REQUEST, "The request's body is not valid HTTP") from None
        finally:
            lease.end()

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """For what makes objects of a body of so many bytes, which may hold up the event loop for
        tens of milliseconds: one large body at a time, and a third of the time in all."""
        if size <= SMALL_BYTES:
            yield
            return
        async with self._turn:
            start = time.perf_counter()
            try:
                yield
            finally:
                await asyncio.sleep(2 * (time.perf_counter() - start))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what Python takes long for, one after the other, while the event loop goes on."""
        async with self._aside:
            return await asyncio.to_thread(work)

    async def _read(self, content: aiohttp.StreamReader, lease: _Lease) -> bytes:
        loop = asyncio.get_running_loop()
        end = loop.time() + BODY_SECONDS
        parts: list[bytes] = []
        size, seconds = 0, BODY_SECONDS
        try:
            async with asyncio.timeout_at(end) as clock:
                while True:
                    seconds = STALL_SECONDS if loop.time() + STALL_SECONDS < end else BODY_SECONDS
                    clock.reschedule(min(end, loop.time() + STALL_SECONDS))
                    part = await content.readany()
                    if not part:
                        return b"".join(parts)
                    parts.append(part)
                    size += len(part)
                    self._check(size)
                    lease.extend(size)
                    if size > SMALL_BYTES:
                        await self._pace.keep(len(part))
        except TimeoutError:
            raise ApiError(Kind.TIMEOUT, f"{seconds:g}") from None

    def _check(self, size: int) -> None:
        if size > self._payload_limit:
            raise ApiError(Kind.TOO_LARGE, self._payload_limit)


class _Lease:
    """What one body holds of the room."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._held = 0

    def extend(self, size: int) -> None:
        """Hold room for so many bytes in all. Raises ApiError when there is none."""
        if size <= max(self._held, SMALL_BYTES):
            return
        more = size - self._held
        if more > self._bodies.free:
            raise ApiError(Kind.TOO_MANY, "Too many large request bodies arrive at a time")
        self._bodies.free -= more
        self._held += more

    def end(self) -> None:
        self._bodies.free += self._held
        self._held = 0
