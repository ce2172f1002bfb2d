"""Log records: one JSON object a line on standard error, which the launcher draws."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

TARGET = "penstock_shard"


def record(level: str, message: str, **fields: Any) -> None:
    """Write one record. One write call a line, so that lines of several threads never mix."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    entry = {"timestamp": now, "level": level, "target": TARGET, "message": message}
    rank = os.environ.get("RANK")
    if rank is not None:
        entry["rank"] = rank
    entry.update(fields)
    sys.stderr.write(json.dumps(entry) + "\n")
    sys.stderr.flush()


def info(message: str, **fields: Any) -> None:
    record("INFO", message, **fields)


def warning(message: str, **fields: Any) -> None:
    record("WARN", message, **fields)


def error(message: str, **fields: Any) -> None:
    record("ERROR", message, **fields)


class Progress:
    """Reports how much of something is done, at most four times a second and always the last."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._next = 0.0

    def reach(self, done: int, total: int) -> None:
        """So many are done, of so many."""
        self.total = total
        self.advance(done - self.done)

    def advance(self, amount: int) -> None:
        """Count amount as done."""
        self.done += amount
        now = time.monotonic()
        if now >= self._next or self.done >= self.total:
            self._next = now + 0.25
            progress = {
                "what": self.what,
                "done": self.done,
                "total": self.total,
                "unit": self.unit,
            }
            info(f"{self.what}: {self.done} of {self.total} {self.unit}", progress=progress)
