"""The launcher's log: its own records and those of its children, as text or as JSON, on stdout.

A child writes one JSON object a line to standard error; the launcher adds which process it was.
Lines that are not JSON (a traceback, a library's warning) are passed on as they are.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TextIO

from penstock_launcher.outlet import standard_output
from penstock_launcher.progress import Lines, Records, View
from penstock_proto.outlet import Outlet
from penstock_proto.progress import Bars, Progress

MAX_LINE = 64 * 1024  # bytes of a child's line; the rest is dropped, and the record says so
TAIL_LINES = 10  # of a child's last lines, kept for the message about its death
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF")
_HEAD = ("timestamp", "level", "target", "message", "process", "rank")  # the process says the rank
OF_A_STACK = "(most recent call first):"  # the end of its first line, as faulthandler has it


class LineSplitter:
    """Bytes in any portions -> lines of at most MAX_LINE bytes."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> Iterator[str]:
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._append(end)
            yield self._take()
        self._append(rest)

    def flush(self) -> Iterator[str]:
        """What came after the last newline, when the stream has ended."""
        if self._partial:
            yield self._take()

    def _append(self, data: bytes) -> None:
        kept = data[: MAX_LINE - len(self._partial)]
        self._partial += kept
        self._dropped += len(data) - len(kept)

    def _take(self) -> str:
        line = self._partial.decode(errors="replace").rstrip("\r")
        if self._dropped:
            line += f"… ({self._dropped} bytes more)"
        self._partial.clear()
        self._dropped = 0
        return line


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a child, as it reads in text."""

    text: str
    error: str = ""  # its message, where it is one


class Log:
    """Writes records. Never raises: a log that cannot be written must not end the server."""

    def __init__(
        self,
        *,
        as_json: bool,
        level: str = "info",
        secrets: tuple[str, ...] = (),
        stream: TextIO | None = None,
        records_of_progress: bool = False,
    ) -> None:
        """level: the least that is written, one of LEVELS in small letters. records_of_progress:
        whoever reads the log draws it."""
        self._as_json = as_json
        self._least = LEVELS.index(level.upper())
        self._secrets: set[str] = set()
        self.mask(secrets)
        self._stream: TextIO | Outlet | None = stream or standard_output()
        self._progress = self._view(records_of_progress)

    def mask(self, secrets: Iterable[str]) -> None:
        """These are not to be written from now on either."""
        self._secrets.update(secrets)
        self._secret = _pattern(self._secrets)

    def info(self, message: str, **fields: object) -> None:
        self._own("INFO", message, fields)

    def facts(self, message: str, **fields: object) -> None:
        """What programs read and people have in the message: fields stand in JSON alone."""
        self._own("INFO", message, fields if self._as_json else {})

    def warning(self, message: str, **fields: object) -> None:
        self._own("WARN", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._own("ERROR", message, fields)

    def child_line(self, process: str, line: str) -> Said:
        """Pass on one line of a child."""
        record = _parse(line)
        if record is None:
            whose = f"{process}: " if line.endswith(OF_A_STACK) else ""  # one a thread
            text = None if self._as_json else whose + _escape(line)
            self._write(text, _raw(process, line))
            return Said(_escape(line))
        if isinstance(progress := record.get("progress"), dict):
            self._show_progress(process, progress)
            return Said("")
        record["process"] = process
        exception = record.pop("exception", None) if not self._as_json else None
        lines = [_as_text(record), *map(_escape, str(exception or "").splitlines())]
        self._write("\n".join(lines), record)
        reason = _escape(str(record["message"])) if record.get("level") == "ERROR" else ""
        return Said("\n".join(lines), reason)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[Callable[..., None]]:
        """Shows who is waited for, as `View.wait`."""
        try:
            yield self._progress.wait
        finally:
            self._progress.waited()

    def close(self) -> None:
        self._progress.close()
        if isinstance(self._stream, Outlet):
            with contextlib.suppress(OSError):
                self._stream.close()

    def _view(self, records: bool) -> View:
        if records:
            return Records(lambda **fields: self._write(None, {"level": "INFO", **fields}))
        if sys.stderr and sys.stderr.isatty() and not self._as_json:
            return Bars()
        return Lines(self.info)

    def _own(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        head = {"timestamp": _now(), "level": level, "target": "penstock_launcher"}
        record = {**head, "message": message, **fields}
        self._write(_as_text(record), record)

    def _show_progress(self, process: str, record: dict[str, Any]) -> None:
        if (progress := Progress.parse(process, record)) is not None:
            self._progress.show(progress)

    def _write(self, text: str | None, record: Mapping[str, object]) -> None:
        if self._least > _rank(record):
            return
        line = json.dumps(record, default=str) if self._as_json or text is None else text
        if self._secret is not None:
            line = self._secret.sub("***", line)
        if self._stream is None:
            return
        try:
            with self._progress.hidden():
                self._stream.write(line + "\n")
        except (OSError, ValueError):
            self._stream = None  # whoever read the log is gone


def _rank(record: Mapping[str, object]) -> int:
    """Place of a record's level; what libraries print without one counts as INFO."""
    level = str(record.get("level", "INFO")).upper()[:5]
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("INFO")


class Tail:
    """The last lines of a child, for the message about its death."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self.error = ""  # what the very last one says, where it is an error

    def add(self, said: Said) -> None:
        self._lines.extend(line[:1000] for line in said.text.splitlines())
        self.error = said.error

    def text(self) -> str:
        return "\n".join(self._lines)


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of them, as it is or as JSON writes it. A long one may hold a short one."""
    # a key of one or two characters would blot out the whole log
    told = {secret for secret in secrets if len(secret) >= 4}
    told |= {json.dumps(secret)[1:-1] for secret in told}
    alternatives = sorted(told, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, alternatives))) if told else None


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not ("message" in record or "progress" in record):
        return None
    return record


def _raw(process: str, line: str) -> dict[str, object]:
    head = {"timestamp": _now(), "level": "INFO", "target": "stderr", "message": line}
    return {**head, "process": process}


def _as_text(record: Mapping[str, object]) -> str:
    """`time  LEVEL process target: message key=value …`"""
    time = str(record.get("timestamp", _now()))
    level = str(record.get("level", "INFO")).upper()[:5]
    target = str(record.get("target", "")).removeprefix("penstock_").removeprefix("launcher")
    process = str(record.get("process", "launcher"))
    source = process if process.startswith(target) else f"{process} {target}"
    fields = "".join(f" {key}={_value(value)}" for key, value in record.items() if key not in _HEAD)
    return _escape(f"{time} {level:>5} {source}: {record.get('message', '')}{fields}")


def _value(value: object) -> str:
    """Strings as they are, floats in all their digits and without an exponent, the rest as JSON."""
    match value:
        case str():
            return value
        case float():
            return format(Decimal(repr(value)), "f")
        case _:
            return json.dumps(value, default=str)


def _escape(text: str) -> str:
    """Control characters, which could forge lines or drive the terminal, in Python's notation."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")
