"""A rate of something that is counted."""

from __future__ import annotations

import time


class Throughput:
    """How much a second a count grew, over the last seconds."""

    def __init__(self, window: float = 10.0) -> None:
        self._window = window
        self._before = self._last = self._now = (time.monotonic(), 0.0)

    def note(self, count: float) -> None:
        """To be called now and then, at least once in the window."""
        now = time.monotonic()
        if now - self._last[0] >= self._window / 2:
            self._before, self._last = self._last, (now, count)
        self._now = (now, count)

    @property
    def value(self) -> float:
        """A second, over one half to all of the window."""
        now, count = self._now
        seconds = now - self._before[0]
        return (count - self._before[1]) / seconds if seconds else 0.0
