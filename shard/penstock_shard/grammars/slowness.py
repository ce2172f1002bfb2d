"""Matchers whose tokens take too long.

What follows a token of an ambiguous grammar (`s: s s | s s s | "x"`) has more derivations with each
one before it: behind some hundred tokens a mask takes a tenth of a second, and all sequences of a
step wait for it. To take a token in costs 2 us elsewhere, and next to nowhere more than 700.
"""

from __future__ import annotations

import time

SLOW_SECONDS = 0.001  # of the processor, to take a token in; the mask takes up to ten times as long
SLOW_TOKENS = 8  # of a sequence, before it ends
REASON = "it became too complex: each further token would take the server too long"


class Stopwatch:
    """Made when the first of several tokens is about to be taken in, by the thread that does."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.thread_time()

    def was_slow(self) -> bool:
        """Whether the token since the last call was. Others' work on the processor is not counted,
        which is only looked at where it may be."""
        before, self._wall = self._wall, time.perf_counter()
        if self._wall - before <= SLOW_SECONDS:
            return False
        begun, self._processor = self._processor, time.thread_time()
        return self._processor - begun > SLOW_SECONDS
