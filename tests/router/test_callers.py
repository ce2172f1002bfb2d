"""The end of a drain waits for those who still call, by a clock of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from penstock_router import callers
from penstock_router.callers import MOST_SECONDS, QUIET_SECONDS, Callers


class Clock:
    """Time passes where somebody sleeps; `calls` says how many came until a moment."""

    def __init__(self, calls: Callable[[float], float]) -> None:
        self.now = 0.0
        self._calls = calls

    def count(self) -> float:
        return self._calls(self.now)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("calls", "grace", "least", "most"),
    [
        pytest.param(lambda now: 0, 90, 0, 0, id="nobody ever called"),
        pytest.param(lambda now: now > 5, 90, 0, 0, id="nobody has called for long"),
        pytest.param(lambda now: now > 59, 90, 0, 0.5, id="nobody goes on"),
        pytest.param(
            lambda now: min(now, 61) // 0.1, 90, QUIET_SECONDS, 3.0, id="a balancer hears of it"
        ),
        pytest.param(
            lambda now: now // 0.1, 90, MOST_SECONDS, MOST_SECONDS + 1, id="somebody never stops"
        ),
        pytest.param(lambda now: now // 0.1, 1, 1, 1, id="its time is up"),
        pytest.param(lambda now: now // 0.1, 0, 0, 0, id="there was no time"),
    ],
)
async def test_how_long_it_stays(
    monkeypatch: pytest.MonkeyPatch,
    calls: Callable[[float], float],
    grace: float,
    least: float,
    most: float,
) -> None:
    clock, before = Clock(calls), 60.0
    watch = Callers(clock.count)
    watch._pulse.stop()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    watch._heard = -callers.RECENT_SECONDS
    while clock.now < before:
        clock.now += 0.1
        watch._look()
    began = clock.now
    await watch.gone(began + grace)
    assert least <= clock.now - began + 0.01 and clock.now - began <= most + 0.11
