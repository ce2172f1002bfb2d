"""Where the time of the start went: what the launcher saw of it, and what the others say."""

from __future__ import annotations

import time
from collections.abc import Mapping


class StartClock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}  # seconds
        self._begun = self._last = time.monotonic()

    def note(self, phase: str, happened: bool = True) -> None:
        """A phase is over, which began when the one before it ended."""
        now = time.monotonic()
        if happened:
            self.phases[phase] = now - self._last
        self._last = now

    def table(self, others: Mapping[str, float]) -> str:
        """All of it in a line: the whole time, and the phases, the shards' too."""
        total = time.monotonic() - self._begun
        phases = self.phases | dict(others)
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())
        return f"start {total:.1f} s" + (f": {parts}" if parts else "")
