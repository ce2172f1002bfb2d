"""OpenAI's batch format, as it goes out: files of answers that survive a crash.

A line's `id` says which line of the input it answers, so a run that was killed goes on with those
that have no answer. Lines are written and synced in groups; the end of a file that a crash cut in
the middle of a line is cut back to the line before.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from penstock.batches.requests import Survey, fingerprint

ID = re.compile(r"batch_req_(\d{1,12})")
CHUNK = 1 << 20  # bytes


class WrongFile(Exception):
    """An output that belongs to something else; the message is for the user."""


def answered(line: int, custom_id: str, status: int, request_id: str, body: Any) -> bytes:
    """The line of a request that the server answered, whatever it said. line: from 0."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _line(line, custom_id, response, None)


def refused(line: int, custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that was not sent, or never answered."""
    return _line(line, custom_id, None, {"code": code, "message": message})


def _line(line: int, custom_id: str, response: Any, error: Any) -> bytes:
    entry = {"id": f"batch_req_{line + 1}", "custom_id": custom_id}
    return orjson.dumps(entry | {"response": response, "error": error}) + b"\n"


def is_success(entry: dict[str, Any]) -> bool:
    """Whether a line of an output is an answer of status 200."""
    return (entry.get("response") or {}).get("status_code") == 200


class ResultFile:
    """A file of results, this process's alone while it is open."""

    def __init__(self, path: Path) -> None:
        """Raises WrongFile when another process writes to it, or it is no file; OSError."""
        if path.exists() and not path.is_file():
            raise WrongFile(f"{path} is no plain file")
        self.path = path
        self._file: IO[bytes] = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise WrongFile(f"another process writes to {path}") from None

    def resume(self, survey: Survey, done: bytearray) -> tuple[int, int]:
        """Marks the lines that are answered, mends the end; how many are, and how many failed.

        done: a byte for each line of the input. Raises WrongFile where a line is no answer to the
        input's line of its number.
        """
        self._mend()
        count = failed = 0
        self._file.seek(0)
        for number, text in enumerate(self._file, 1):
            try:
                entry = orjson.loads(text)
                line = int(ID.fullmatch(entry["id"])[1]) - 1  # type: ignore[index]
                name = entry["custom_id"]
                known = survey.names[line] if 0 <= line < survey.lines else None
                if known is None or (name and fingerprint(name) != known):
                    raise ValueError
            except (ValueError, TypeError, KeyError):
                raise WrongFile(
                    f"line {number} of {self.path} answers no line of this input: it is of another "
                    "input or program; move it away to begin anew"
                ) from None
            if not done[line]:
                done[line] = 1
                count += 1
                failed += not is_success(entry)
        return count, failed

    def _mend(self) -> None:
        """Cut what a crash left of a last line."""
        file = self._file
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - CHUNK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())

    def append(self, lines: Sequence[bytes]) -> None:
        """Returns when the disk has them."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets others have it."""
        self._file.close()
