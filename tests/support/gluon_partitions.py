"""Functions that run in threads of their own, one at a time, in an order that is always the same.

So a test of a kernel's partitions fails every time or never, and a deadlock is found at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from support.gluon_values import GluonError


class Abandoned(Exception):
    """Another partition failed."""


class Partitions:
    """Takes turns among functions that run in threads of their own, one at a time."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order  # who goes first
        self._condition = threading.Condition()
        self._ready: dict[int, Callable[[], bool]] = {index: lambda: True for index in order}
        self._running: int | None = None
        self.failure: BaseException | None = None

    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """Raises what the first of them raises, GluonError for a deadlock."""
        threads = [
            threading.Thread(target=self._enter, args=(index, function), daemon=True)
            for index, function in enumerate(functions)
        ]
        with self._condition:
            self._choose()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def turn(self, index: int, ready: Callable[[], bool]) -> None:
        """Let others run; returns when `ready` and it is this one's turn."""
        with self._condition:
            self._ready[index] = ready
            self._choose()
            self._await(index)

    def _enter(self, index: int, function: Callable[[], None]) -> None:
        try:
            with self._condition:
                self._await(index)
            function()
        except Abandoned:
            return
        except BaseException as error:
            with self._condition:
                self.failure = self.failure or error
                self._condition.notify_all()
            return
        with self._condition:
            del self._ready[index]
            self._choose()

    def _choose(self) -> None:
        left = [index for index in self._order if index in self._ready]
        self._running = next((index for index in left if self._ready[index]()), None)
        if left and self._running is None:
            self.failure = GluonError(f"deadlock: partitions {sorted(left)} wait in vain")
        self._condition.notify_all()

    def _await(self, index: int) -> None:
        self._condition.wait_for(lambda: self._running == index or self.failure is not None)
        if self.failure is not None:
            raise Abandoned
