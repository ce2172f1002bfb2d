"""Progress of long work in the children: bars on a terminal, a line each quarter elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tqdm import tqdm


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
    def quarters(self) -> int:
        return min(int(4 * self.done / self.total), 4) if self.total else 0

    def amount(self, value: float) -> str:
        """Bytes with a decimal prefix; other units are named once, behind both amounts."""
        if self.unit != "B":
            return f"{value:g}"
        for unit in ("B", "KB", "MB", "GB"):
            if value < 1000:
                return f"{value:.4g} {unit}"
            value /= 1000
        return f"{value:.4g} TB"


class ProgressView:
    """Shows the latest progress of each (process, work)."""

    def __init__(self, *, bars: bool, say: Callable[[str], None]) -> None:
        self._draws_bars = bars
        self._say = say
        self._bars: dict[tuple[str, str], Any] = {}
        self._finished: set[tuple[str, str]] = set()
        self._quarters: dict[tuple[str, str], int] = {}

    def show(self, progress: Progress) -> None:
        if self._draws_bars:
            self._draw(progress)
        elif progress.quarters > self._quarters.get(progress.key, -1):
            self._quarters[progress.key] = progress.quarters
            amounts = f"{progress.amount(progress.done)} of {progress.amount(progress.total)}"
            unit = "" if progress.unit == "B" else f" {progress.unit}"
            percent = f"{25 * progress.quarters} %"
            self._say(f"{progress.process}: {progress.what}: {percent} ({amounts}{unit})")

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
                desc=f"{progress.process}: {progress.what}",
                total=progress.total or None,
                unit="B" if is_bytes else f" {progress.unit}",
                unit_scale=is_bytes,
                file=sys.stderr,
            )
        bar.total = progress.total or None
        bar.update(progress.done - bar.n)
        if progress.total and progress.done >= progress.total:
            self._finished.add(progress.key)
            self._bars.pop(progress.key).close()
