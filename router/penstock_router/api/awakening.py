"""Requests whose sequences end in one step go on a few at a time.

Each then makes its answer, its line in the log and its counts, which takes a third of a millisecond
of the event loop. With a hundred of them in one turn of the loop everybody else would wait.
"""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 4  # requests in a turn of the event loop


class Awakening:
    """Who waits to go on, first come, first served; of one process."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._woken = 0  # in this turn
        self._due = False

    def wake(self, future: asyncio.Future[None]) -> None:
        """Set the result of a future: now, or in one of the next turns."""
        if self._woken < AT_ONCE and not self._waiting:
            self._wake(future)
        else:
            self._waiting.append(future)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _wake(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            self._woken += 1
            future.set_result(None)

    def _go_on(self) -> None:
        """In the next turn."""
        self._woken = 0
        while self._waiting and self._woken < AT_ONCE:
            self._wake(self._waiting.popleft())
        self._due = self._woken > 0
        if self._due:
            asyncio.get_running_loop().call_soon(self._go_on)
