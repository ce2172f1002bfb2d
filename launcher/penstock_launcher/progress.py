"""Progress of long work: bars on a terminal, a few lines elsewhere, with the time that is left.

How long is known from what is done, and of work without a measure from the last start
(`last_start`), where there was one; else nobody guesses.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tqdm import tqdm

FIRST_PAUSE = 5.0  # seconds until the second line of a piece of work; each is twice the one before
SHORTEST = 1.0  # seconds of work whose time is worth a word
WAIT = ("", "wait")  # the key of the bar that counts seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units; total 0 while unknown."""

    process: str
    what: str
    done: float
    total: float
    unit: str

    @classmethod
    def parse(cls, process: str, record: dict[str, Any]) -> Self | None:
        """None for a record that is not as the contract says: a child's bug must not end us."""
        done, total = record.get("done"), record.get("total") or 0
        if not isinstance(done, int | float) or not isinstance(total, int | float):
            return None
        unit = str(record.get("unit", ""))
        return cls(process, str(record.get("what", "")), done, max(total, 0), unit)

    @property
    def key(self) -> tuple[str, str]:
        return self.process, self.what

    @property
    def label(self) -> str:
        return self.what if self.what == self.process else f"{self.process}: {self.what}"

    @property
    def quarters(self) -> int:
        return min(int(4 * self.done / self.total), 4) if self.total else 0

    @property
    def percent(self) -> int:
        return min(int(100 * self.done / self.total), 100) if self.total else 0

    def amount(self, value: float) -> str:
        """Bytes with a decimal prefix; other units are named once, behind both amounts."""
        if self.unit != "B":
            return f"{value:g}"
        for unit in ("B", "KB", "MB", "GB"):
            if value < 1000:
                return f"{value:.4g} {unit}"
            value /= 1000
        return f"{value:.4g} TB"


def duration(seconds: float) -> str:
    """As people say it: `7 s`, `2 min 5 s`, `1 h 3 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def waited(names: str, elapsed: float, expected: float | None) -> str:
    """How long somebody has waited, and will, where the last start took `expected` seconds."""
    text = f"waiting for {names} to be ready ({duration(elapsed)}"
    if expected is None:
        return text + ")"
    if elapsed < expected:
        return f"{text}; some {duration(expected - elapsed)} left, as the last start went)"
    return f"{text}; the last start took {duration(expected)})"


def waited_so_far(names: str, elapsed: float, expected: float | None) -> str:
    """The same for a line of a terminal, which may be short."""
    text = f"waiting for {names}: {duration(elapsed)}"
    left = 0 if expected is None else expected - elapsed
    return f"{text}, some {duration(left)} left" if left > 0 else text


class Lines:
    """One piece of work in a log: what to say of it, and when."""

    def __init__(self, first: Progress, now: float) -> None:
        self._first, self._begun = first, now
        self._quarters = -1
        self._next, self._pause = now, FIRST_PAUSE

    def line(self, progress: Progress, now: float) -> str | None:
        """At the start and the end, at each quarter, and after pauses that grow."""
        if progress.quarters <= self._quarters and (now < self._next or self._quarters == 4):
            return None
        self._quarters = max(progress.quarters, self._quarters)
        self._next, self._pause = now + self._pause, 2 * self._pause
        amounts = f"{progress.amount(progress.done)} of {progress.amount(progress.total)}"
        if not progress.total:
            amounts = progress.amount(progress.done)
        unit = "" if progress.unit == "B" else f" {progress.unit}"
        share = f"{progress.percent} % ({amounts}{unit})" if progress.total else amounts + unit
        return f"{progress.label}: {share}{self._time(progress, now)}"

    def _time(self, progress: Progress, now: float) -> str:
        elapsed, come = now - self._begun, progress.done - self._first.done
        if elapsed < SHORTEST or not progress.total:
            return ""
        if progress.done >= progress.total:
            return f" in {duration(elapsed)}"
        if come <= 0:
            return ""
        return f", {duration(elapsed * (progress.total - progress.done) / come)} left"


class ProgressView:
    """Shows the latest progress of each (process, work)."""

    def __init__(
        self,
        *,
        bars: bool,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._draws_bars = bars
        self._say = say
        self._clock = clock
        self._bars: dict[tuple[str, str], Any] = {}
        self._finished: set[tuple[str, str]] = set()
        self._lines: dict[tuple[str, str], Lines] = {}

    def show(self, progress: Progress) -> None:
        """The latest of a piece of work."""
        if self._draws_bars:
            return self._draw(progress)
        now = self._clock()
        lines = self._lines.setdefault(progress.key, Lines(progress, now))
        if (line := lines.line(progress, now)) is not None:
            self._say(line)

    def wait(self, names: str, elapsed: float, expected: float | None, *, due: bool) -> None:
        """Somebody waits for what has no measure. due: a log should have a line of it now."""
        if not self._draws_bars:
            return self._say(waited(names, elapsed, expected)) if due else None
        if WAIT not in self._bars:
            shape = "{desc}" if expected is None else "{percentage:3.0f}%|{bar:20}| {desc}"
            self._bars[WAIT] = tqdm(
                total=expected, leave=False, bar_format=shape, file=sys.stderr, dynamic_ncols=True
            )
        bar = self._bars[WAIT]
        bar.n = elapsed if expected is None else min(elapsed, expected)
        bar.set_description_str(waited_so_far(names, elapsed, expected))

    def waited(self) -> None:
        """What was waited for is there."""
        if (bar := self._bars.pop(WAIT, None)) is not None:  # tqdm has no truth
            bar.close()

    def hidden(self) -> contextlib.AbstractContextManager[Any]:
        """While log lines are written, the bars stand aside."""
        if not self._bars:
            return contextlib.nullcontext()
        return tqdm.external_write_mode(file=sys.stderr)  # type: ignore[no-any-return]

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def _draw(self, progress: Progress) -> None:
        if progress.key in self._finished:
            return
        bar = self._bars.get(progress.key)
        if bar is None:
            is_bytes = progress.unit == "B"
            bar = self._bars[progress.key] = tqdm(
                desc=progress.label,
                total=progress.total or None,
                initial=progress.done,  # what was there before says nothing of the speed
                unit="B" if is_bytes else f" {progress.unit}",
                unit_scale=is_bytes,
                file=sys.stderr,
                dynamic_ncols=True,
            )
        bar.total = progress.total or None
        bar.update(progress.done - bar.n)
        if progress.total and progress.done >= progress.total:
            self._finished.add(progress.key)
            self._bars.pop(progress.key).close()
