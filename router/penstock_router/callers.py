"""Who still calls while the server drains: they are told so, before the port closes.

A balancer hears of a drain at its next look at /ready, a second late. Until then it sends requests
here, which get 503 and are sent elsewhere. Those that came while the port closes would get no
answer at all, and nobody could know whether they had begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from penstock_router.pulse import Pulse

RECENT_SECONDS = 2.0  # in which somebody called before the drain
FIRST_SECONDS = 0.3  # in which somebody who goes on calling does so
QUIET_SECONDS = 1.5  # without a call
MOST_SECONDS = 10.0


class Callers:
    """Knows when somebody last called, as well as it need be."""

    def __init__(self, count: Callable[[], float]) -> None:
        """count: requests so far, those that were turned away among them."""
        self._count = count
        self._seen = count()
        self._heard = time.monotonic() - RECENT_SECONDS
        self._pulse = Pulse(FIRST_SECONDS / 3, self._look)

    async def gone(self, end: float) -> None:
        """Wait until nobody calls any more, but not beyond a moment of the monotonic clock; hardly
        at all where nobody does."""
        self._look()
        if time.monotonic() - self._heard < RECENT_SECONDS:
            await self._silence(min(end, time.monotonic() + MOST_SECONDS))
        self._pulse.stop()

    async def _silence(self, end: float) -> None:
        began = time.monotonic()
        await asyncio.sleep(max(0.0, min(FIRST_SECONDS, end - began)))
        self._look()
        if self._heard <= began:
            return
        while time.monotonic() - self._heard < QUIET_SECONDS:
            if time.monotonic() >= end:
                return
            await asyncio.sleep(FIRST_SECONDS / 3)
            self._look()

    def _look(self, _late: float = 0.0) -> None:
        if (count := self._count()) != self._seen:
            self._seen, self._heard = count, time.monotonic()
