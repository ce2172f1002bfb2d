"""How the launcher tells progress: bars on a terminal, a few lines in a log, records to a parent.

How long is left is known from what is done, and of work without a measure from the last start
(`last_start`), where there was one; else nobody guesses.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from penstock_proto.progress import Progress, Wait, duration

FIRST_PAUSE = 5.0  # seconds until the second line of a piece of work; each is twice the one before
SHORTEST = 1.0  # seconds of work whose time is worth a word


class View(Protocol):
    """`Lines`, `Records`, or penstock_proto's `Bars`."""

    def show(self, progress: Progress) -> None: ...

    def wait(self, wait: Wait, *, due: bool) -> None:
        """due: a log should have a line of it now."""

    def waited(self) -> None: ...

    def hidden(self) -> contextlib.AbstractContextManager[Any]: ...

    def close(self) -> None: ...


class _Unseen:
    """What leaves nothing on a screen."""

    def waited(self) -> None:
        pass

    def hidden(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


class Records(_Unseen):
    """All there is, for a parent that draws it."""

    def __init__(self, write: Callable[..., None]) -> None:
        """write: fields of a record."""
        self._write = write

    def show(self, progress: Progress) -> None:
        self._write(process=progress.process, progress=progress.record())

    def wait(self, wait: Wait, *, due: bool) -> None:
        self._write(wait=wait.record())

    def waited(self) -> None:
        self._write(wait={})


class Lines(_Unseen):
    """A line where one is due."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._works: dict[tuple[str, str], _Work] = {}

    def show(self, progress: Progress) -> None:
        now = self._clock()
        work = self._works.setdefault(progress.key, _Work(progress, now))
        if (line := work.line(progress, now)) is not None:
            self._say(line)

    def wait(self, wait: Wait, *, due: bool) -> None:
        if due:
            self._say(str(wait))


class _Work:
    """One piece of work in a log: what to say of it, and when."""

    def __init__(self, first: Progress, now: float) -> None:
        self._first, self._begun = first, now
        self._quarters = -1
        self._next, self._pause = now, FIRST_PAUSE

    def line(self, progress: Progress, now: float) -> str | None:
        """At the start and the end, at each quarter, and after pauses that grow."""
        share = min(progress.done / progress.total, 1) if progress.total else 0
        quarters = int(4 * share)
        if quarters <= self._quarters and (now < self._next or self._quarters == 4):
            return None
        self._quarters = max(quarters, self._quarters)
        self._next, self._pause = now + self._pause, 2 * self._pause
        amounts = amount(progress.done, progress.unit)
        if progress.total:
            amounts += f" of {amount(progress.total, progress.unit)}"
        amounts += "" if progress.unit == "B" else f" {progress.unit}"
        told = f"{int(100 * share)} % ({amounts})" if progress.total else amounts
        return f"{progress.label}: {told}{self._time(progress, now)}"

    def _time(self, progress: Progress, now: float) -> str:
        elapsed, come = now - self._begun, progress.done - self._first.done
        if elapsed < SHORTEST or not progress.total:
            return ""
        if progress.done >= progress.total:
            return f" in {duration(elapsed)}"
        if come <= 0:
            return ""
        return f", {duration(elapsed * (progress.total - progress.done) / come)} left"


def amount(value: float, unit: str) -> str:
    """Bytes with a decimal prefix; other units are named once, behind both amounts."""
    if unit != "B":
        return f"{value:g}"
    for prefix in ("", "K", "M", "G"):
        if value < 1000:
            return f"{value:.4g} {prefix}B"
        value /= 1000
    return f"{value:.4g} TB"
