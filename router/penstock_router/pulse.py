"""A beat of the event loop, and how late it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pulse:
    """Calls `beat` with the seconds by which it is late, once a `period` of seconds.

    A loop that stood still has one late beat, not many. So beats measure the time in which this
    process could have heard something; a clock on the wall measures its own absence too.
    """

    def __init__(self, period: float, beat: Callable[[float], None]) -> None:
        self.period = period
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + period
        self._timer = self._loop.call_later(period, self._ring)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()

    def _ring(self) -> None:
        now = time.monotonic()
        late, self._due = now - self._due, now + self.period
        self._timer = self._loop.call_later(self.period, self._ring)
        self._beat(max(0.0, late))
