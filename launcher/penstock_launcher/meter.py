"""How far a download is, and what else it has to say, as the log records of a child."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

REPORT_EVERY = 0.5  # seconds between progress records


def _to_launcher(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_tell: Callable[[str], object] = _to_launcher
_one_at_a_time = threading.Lock()


class Meter:
    """Bytes done so far, as progress records. Threads call it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0.0
        self._reported = 0.0
        self._lock = threading.Lock()

    def add(self, more: int) -> None:
        """So many bytes have come; less than none where they were thrown away."""
        with self._lock:
            done = self._done + more
            self._done = done if more < 0 else self._done
            self._reach(done)

    def reached(self, done: float, *, at_once: bool = False) -> None:
        """So many bytes are there in all."""
        with self._lock:
            self._reach(done, at_once)

    def _reach(self, done: float, at_once: bool = False) -> None:
        self._done = max(self._done, min(done, self._total))
        if at_once or time.monotonic() - self._reported >= REPORT_EVERY:
            self._reported = time.monotonic()
            progress = {"what": "download", "done": self._done, "total": self._total, "unit": "B"}
            say("INFO", "downloading", progress=progress)

    def finish(self) -> None:
        """What was in the cache already counts too."""
        self.reached(self._total, at_once=True)


def say(level: str, message: str, **fields: object) -> None:
    """One log record, as the launcher's children write them."""
    record = {"level": level, "target": "penstock_launcher.download", "message": message, **fields}
    with _one_at_a_time:
        _tell(json.dumps(record))


@contextlib.contextmanager
def told_to(hear: Callable[[str], object]) -> Iterator[None]:
    """Records go to `hear` for as long, in a command that is no child of a launcher."""
    global _tell
    before, _tell = _tell, hear
    try:
        yield
    finally:
        _tell = before
