"""Progress of long work, as a launcher tells it and as a terminal shows it.

Who waits is the launcher, or a program that has started one and draws the bars itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import Any, Self

from tqdm import tqdm

WANTED = "PENSTOCK_PROGRESS"  # set: the launcher's parent shows progress, and wants it as records
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

    def record(self) -> dict[str, Any]:
        """What `parse` reads, without the process."""
        return {"what": self.what, "done": self.done, "total": self.total, "unit": self.unit}

    @property
    def key(self) -> tuple[str, str]:
        return self.process, self.what

    @property
    def label(self) -> str:
        return self.what if self.what == self.process else f"{self.process}: {self.what}"


@dataclass(frozen=True, slots=True)
class Wait:
    """For whom somebody waits, and how long: seconds so far, and of the last start, if any."""

    names: str
    elapsed: float
    expected: float | None

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Self | None:
        """None for anything else than what `record` wrote."""
        elapsed, expected = record.get("elapsed"), record.get("expected")
        if not isinstance(elapsed, int | float) or not isinstance(expected, int | float | None):
            return None
        return cls(str(record.get("names", "")), elapsed, expected)

    def record(self) -> dict[str, Any]:
        return {"names": self.names, "elapsed": self.elapsed, "expected": self.expected}

    def __str__(self) -> str:
        text = f"waiting for {self.names} to be ready ({duration(self.elapsed)}"
        if self.expected is None:
            return text + ")"
        if self.elapsed < self.expected:
            left = duration(self.expected - self.elapsed)
            return f"{text}; some {left} left, as the last start went)"
        return f"{text}; the last start took {duration(self.expected)})"

    @property
    def short(self) -> str:
        """The same for a line of a terminal, which may be short."""
        text = f"waiting for {self.names}: {duration(self.elapsed)}"
        left = 0 if self.expected is None else self.expected - self.elapsed
        return f"{text}, some {duration(left)} left" if left > 0 else text


def duration(seconds: float) -> str:
    """As people say it: `7 s`, `2 min 5 s`, `1 h 3 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Bars:
    """The latest of each (process, work), as bars on standard error."""

    def __init__(self) -> None:
        self._bars: dict[tuple[str, str], Any] = {}
        self._finished: set[tuple[str, str]] = set()

    def show(self, progress: Progress) -> None:
        """The latest of a piece of work. A bar that is full stays, and is shown once."""
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
                **_place(),
            )
        bar.total = progress.total or None
        bar.update(progress.done - bar.n)
        if progress.total and progress.done >= progress.total:
            self._finished.add(progress.key)
            self._bars.pop(progress.key).close()

    def wait(self, wait: Wait, *, due: bool = True) -> None:
        """Somebody waits for what has no measure but the last start. due: of lines alone."""
        if WAIT not in self._bars:
            shape = "{desc}" if wait.expected is None else "{percentage:3.0f}%|{bar:20}| {desc}"
            self._bars[WAIT] = tqdm(total=wait.expected, leave=False, bar_format=shape, **_place())
        bar = self._bars[WAIT]
        bar.n = wait.elapsed if wait.expected is None else min(wait.elapsed, wait.expected)
        bar.set_description_str(wait.short)

    def waited(self) -> None:
        """What was waited for is there."""
        if (bar := self._bars.pop(WAIT, None)) is not None:  # tqdm has no truth
            bar.close()

    def hidden(self) -> contextlib.AbstractContextManager[Any]:
        """While lines are written, the bars stand aside."""
        if not self._bars:
            return contextlib.nullcontext()
        return tqdm.external_write_mode(file=sys.stderr)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Leave them as they are."""
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


def _place() -> dict[str, Any]:
    """Where bars go, for tqdm, which shows nothing on a terminal that knows no size of its own."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # no terminal, which tqdm asks itself
        known = True
    size = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
    return {"file": sys.stderr, **size}
