"""A page that takes the event loop a while to make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

REST = 3  # times as long as the last one took, before the next is made


class SharedPage:
    """All who ask before the next one is made get that one, so nobody's is older than his question.

    However many ask, it takes a quarter of the time at most.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._rest = REST
        self._next: asyncio.Task[bytes] | None = None
        self._rested_at = 0.0

    async def get(self) -> bytes:
        """The page as it is now or shortly after."""
        if self._next is None:
            self._next = asyncio.create_task(self._made())
        return await asyncio.shield(self._next)

    async def _made(self) -> bytes:
        await asyncio.sleep(self._rested_at - time.monotonic())  # none where that is past
        self._next = None
        start = time.thread_time()  # what others have of the machine meanwhile is no reason to rest
        try:
            return self._make()
        finally:
            self._rested_at = time.monotonic() + self._rest * (time.thread_time() - start)
