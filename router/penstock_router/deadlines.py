"""Ends of sequences that may take only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock_router.scheduler import Sequence
from penstock_router.scheduler.sequence import State


class Deadlines:
    """Rings when the time of a sequence is up, counted from its submission.

    One that runs ends with its next token, which carries the end of its stream: `passed` holds it.
    One that waits has none to come soon: `expire` is called for it, at once or when it was
    preempted before that token came.
    """

    def __init__(self, expire: Callable[[Sequence], None]) -> None:
        self.passed: dict[int, Sequence] = {}  # by its id
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._alarms: dict[int, asyncio.TimerHandle] = {}  # by sequence id

    def start(self, sequence: Sequence) -> None:
        """Begin to count for a sequence that was just submitted, if its time is limited."""
        if (seconds := sequence.request.max_time) is not None:
            self._alarms[sequence.id] = self._loop.call_later(seconds, self._ring, sequence)

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self.passed.pop(sequence.id, None)
        if (alarm := self._alarms.pop(sequence.id, None)) is not None:
            alarm.cancel()

    def expire_waiting(self) -> None:
        """To be called now and then, when the tokens of a step are delivered."""
        for sequence in [s for s in self.passed.values() if s.state is State.WAITING]:
            self._expire(sequence)

    def _ring(self, sequence: Sequence) -> None:
        if sequence.state is State.WAITING:
            self._expire(sequence)
        else:
            self.passed[sequence.id] = sequence
