"""Requests that could all go on in one turn of the event loop do so a few a turn, and clients take
turns.

Those that come in one turn, or whose sequences end in one step, each take a few tenths of a
millisecond: for reading what is asked, or for an answer, a line in the log and counts. With a
hundred of them in one turn everybody else would wait, and who has one would stand behind who has
two hundred.
"""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 4  # requests in a turn of the event loop


class Awakening:
    """Who waits to go on, in one process. Clients take turns."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by client, the next one first
        self._woken = 0  # in this turn
        self._due = False

    def wake(self, future: asyncio.Future[None], client: str) -> None:
        """Set the result of a future: now, or in one of the next turns.

        client: empty where nobody knows.
        """
        if self._woken < AT_ONCE and not self._waiting:
            self._wake(future)
        else:
            self._waiting.setdefault(client, deque()).append(future)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    async def turn(self, client: str) -> None:
        """Return when it is a client's turn."""
        future = asyncio.get_running_loop().create_future()
        self.wake(future, client)
        await future

    def _wake(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            self._woken += 1
            future.set_result(None)

    def _go_on(self) -> None:
        """In the next turn."""
        self._woken = 0
        while self._waiting and self._woken < AT_ONCE:
            client = next(iter(self._waiting))
            queue = self._waiting.pop(client)
            self._wake(queue.popleft())
            if queue:
                self._waiting[client] = queue  # behind the others
        self._due = self._woken > 0
        if self._due:
            asyncio.get_running_loop().call_soon(self._go_on)
