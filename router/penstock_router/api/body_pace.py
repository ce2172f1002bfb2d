"""How fast large bodies are read: what comes in costs the event loop time, whoever wants it."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

AHEAD_SECONDS = 0.004  # that a lone body is ahead of the pace before it waits
THROW_AWAY_SECONDS = 2.0  # for the rest of a body that was answered before its end


class Pace:
    """Bytes in a second, of all bodies together. Those that wait are read one after the other."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._paid = 0.0  # the moment at which what was read is what the pace allows

    async def keep(self, size: int) -> None:
        """Behind so many bytes, until more may be read. Meanwhile their client is held up: what it
        sends stays in the buffers of both systems."""
        now = asyncio.get_running_loop().time()
        self._paid = max(self._paid, now) + size / self._bytes_per_second
        if self._paid - now > AHEAD_SECONDS:
            await asyncio.sleep(self._paid - now)

    async def throw_away(self, rest: aiohttp.StreamReader, client: BaseProtocol) -> None:
        """Read what still comes of a body that was answered before its end, for a while: some
        clients read nothing before they have sent all. Nothing of it is kept."""
        with contextlib.suppress(TimeoutError, web.RequestPayloadError):
            async with asyncio.timeout(THROW_AWAY_SECONDS):
                while part := await rest.readany():
                    size = len(part)
                    del part
                    # Not by the protocol's own call, which a body that is over does not survive.
                    client._pause_transport_reading()
                    try:
                        await self.keep(size)
                    finally:
                        client._resume_transport_reading()
