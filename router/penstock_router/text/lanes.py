"""Threads for texts, by their length: nobody waits for a text that is much longer than his own, and
few of those that take hundreds of megabytes are encoded at a time. What is no text, and Python all
through, has a thread of its own: two of them would halve what the event loop gets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from penstock_router.text.workers import Workers

T = TypeVar("T")

LARGE = 100_000  # characters whose encoding takes tens of megabytes
# Up to 150 bytes each, where they are one word: such texts are encoded one at a time.
HUGE = 500_000


class Lanes:
    """`workers` threads for common texts, as many for large ones, and one for the largest."""

    def __init__(self, workers: int) -> None:
        self._lanes = (
            (LARGE, Workers(workers)),
            (HUGE, Workers(workers)),
            (sys.maxsize, Workers(1)),
        )
        self._aside = Workers(1)

    async def run(self, work: Callable[[], T], characters: int = 0) -> T:
        """Do the work in a thread for texts of that length. Raises TokenizerError when that takes
        too long."""
        lane = next(lane for most, lane in self._lanes if characters <= most)
        return await lane.run(work)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what no text waits for, one after the other. Raises what `run` raises."""
        return await self._aside.run(work)

    def close(self) -> None:
        """Let the threads end; does not wait for them."""
        for _, lane in self._lanes:
            lane.close()
        self._aside.close()
