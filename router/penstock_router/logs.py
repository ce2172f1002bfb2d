"""Log lines: one JSON object each, on standard error."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from penstock_proto.outlet import Outlet

MESSAGES = 256  # that a RareLog remembers
_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}


class JsonFormatter(logging.Formatter):
    """`{"timestamp", "level", "target", "message", ...}`; further fields come as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": _timestamp(record.created),
            "level": _LEVELS.get(record.levelname, record.levelname),
            "target": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Handler(logging.Handler):
    """Writes to a descriptor, and never waits for its reader: the event loop logs."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._outlet = Outlet(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outlet.write(self.format(record) + "\n")
        except Exception:  # as every handler: a line that cannot be written is no reason to fail
            self.handleError(record)

    def close(self) -> None:
        """At the end of the process."""
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            self._outlet.close()
        super().close()


def _timestamp(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return when.replace("+00:00", "Z")


def configure_logs(level: str = "INFO") -> None:
    """Send every logger's lines to standard error as JSON."""
    # Who logged and from which thread is in no line: 10 us of the 25 that a line would take.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _Handler(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def log(level: str, message: str, /, *, target: str = "penstock_router", **fields: Any) -> None:
    """Write a line with fields. level: a name of the logging module."""
    number = logging.getLevelNamesMapping()[level]
    logging.getLogger(target).log(number, message, extra={"fields": fields})


class RareLog:
    """Lines that clients can cause as often as they like: each at most once a period."""

    def __init__(self, target: str, period: float = 10.0) -> None:
        self._target = target
        self._period = period  # seconds
        self._seen: dict[str, tuple[float, int]] = {}  # message -> when written, left out since

    def __call__(self, level: str, message: str, /, **fields: Any) -> None:
        """Write a line, with how many like it were left out; or count it as left out."""
        now = time.monotonic()
        written, left_out = self._seen.get(message, (-math.inf, 0))
        if now - written < self._period:
            self._seen[message] = written, left_out + 1
            return
        if len(self._seen) >= MESSAGES:
            self._seen.clear()
        self._seen[message] = now, 0
        if left_out:
            fields["left_out"] = left_out
        log(level, message, target=self._target, **fields)
