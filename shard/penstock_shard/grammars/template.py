"""A compiled grammar, in as many automata as threads may fill masks from at once.

llguidance builds an automaton lazily; a matcher's copies share it, and a lock lets one of them at a
time compute. So threads bring nothing to copies of one matcher: a grammar that many sequences are
held to is compiled several times.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor

from llguidance import LLMatcher

# Half of the cores are left to what runs beside the masks.
AUTOMATA = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
MANY = 4  # copies; a grammar that hardly anybody asks for stays with one automaton


class Template:
    """Matchers of one grammar, at the beginning of a text. One thread at a time may call."""

    def __init__(
        self, first: LLMatcher, another: Callable[[], LLMatcher], most: int, pool: Executor
    ) -> None:
        self._automata = [first]
        self._another, self._most, self._pool = another, most, pool
        self._copies = 0

    def matcher(self, slot: int) -> LLMatcher:
        """For a sequence in this slot."""
        self._copies += 1
        if self._copies == MANY and self._most > 1:
            self._pool.submit(self._grow)
        return self._automata[slot % len(self._automata)].deep_copy()

    def _grow(self) -> None:
        """One more at a time: others' turns come between. Should one fail, those before do."""
        self._automata.append(self._another())
        if len(self._automata) < self._most:
            self._pool.submit(self._grow)
