"""A connection between the launchers of two hosts: lines of JSON, and a beat each second.

A host that is gone, or whose network is, says nothing; beats are counted, so that a launcher that
stood still itself takes nobody for lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

BEAT_SECONDS = 1.0
SILENT_BEATS = 10  # and the host is lost
LONGEST_LINE = 64 * 1024

Message = dict[str, Any]


class Link:
    """One connection. Lives on the event loop.

    on_message is called with what the other side says; on_lost once, with the reason, when it will
    say nothing more.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_message = on_message
        self._on_lost = on_lost
        self._silence = 0
        self._closed = False
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]

    def send(self, message: Message) -> None:
        """Say something."""
        if not self._closed:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """Send what is left, and end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.drain()
        self._writer.close()

    async def _read(self) -> None:
        reason = "its launcher closed the connection"
        try:
            while line := await self._reader.readline():
                self._silence = 0
                message = json.loads(line)
                if message:
                    self._on_message(message)
        except (OSError, ValueError) as error:
            reason = f"the connection to its launcher broke: {error}"
        self._lose(reason)

    async def _beat(self) -> None:
        while True:
            self.send({})
            await asyncio.sleep(BEAT_SECONDS)
            self._silence += 1
            if self._silence > SILENT_BEATS:
                return self._lose(f"its launcher has said nothing for {SILENT_BEATS} s")

    def _lose(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._writer.close()
            self._on_lost(reason)
