"""What changes while the server runs: the file of API keys, read again when it changes and on
SIGHUP, and told to the router.

One line of JSON each, on a pipe that the router inherits: `{"api_key": [key, …]}`, where a key is
a `KeyItem`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from penstock_launcher.api_keys import secrets_of
from penstock_launcher.errors import LauncherError
from penstock_launcher.key_file import KeyItem
from penstock_launcher.logs import Log

LOOK = 5.0  # seconds between two looks at the file
PIPE_BYTES = 1024 * 1024  # what an unprivileged user may have

ReadKeys = Callable[[], tuple[KeyItem, ...]]  # raises LauncherError


class Updates:
    """A context manager. read_keys: None where no file may change. file: with the keys."""

    def __init__(self, read_keys: ReadKeys | None, log: Log, file: Path | None = None) -> None:
        self._read_keys = read_keys
        self._file = file
        self._stamp = _stamp(file)
        self._changed = False
        self._log = log
        self._ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as under nohup
        self._had_terminal = _has_terminal()

    def __enter__(self) -> Self:
        self.descriptor, self._pipe = os.pipe()
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._pipe, False)  # a router that reads nothing must stop nobody
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        os.close(self._pipe)

    @property
    def wanted(self) -> bool:
        """SIGHUP means something here, even where it was to be ignored."""
        return self._read_keys is not None

    def hangup(self) -> bool:
        """What SIGHUP asks for. False where it means what it always did: the terminal is gone."""
        if self._read_keys is None:
            return False
        if self._had_terminal and not self._ignored and not _has_terminal():
            return False
        self._stamp, self._changed = _stamp(self._file), False
        self._read("SIGHUP", self._read_keys)
        return True

    async def watch(self) -> None:
        """Look at the file as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Read the file again if it has changed. Not before it was the same twice: it may be
        written just now."""
        before, self._stamp = self._stamp, _stamp(self._file)
        if self._stamp != before:
            self._changed = True
        elif self._changed and self._read_keys is not None:
            self._changed = False
            self._read("the file has changed", self._read_keys)

    def _read(self, why: str, read_keys: ReadKeys) -> None:
        try:
            keys = read_keys()
            self._log.mask(secrets_of(keys))
            self._tell({"api_key": keys})
        except LauncherError as error:
            self._log.error(f"{why}: the API keys stay as they were: {error}")
        except OSError as error:
            self._log.error(f"{why}: the router does not read its keys: {error.strerror}")
        else:
            self._log.info(f"{why}: {len(keys)} API keys count from now on")

    def _tell(self, update: Mapping[str, object]) -> None:
        """Raises OSError where it does not fit into the pipe; a part of it is then a line that the
        router passes over."""
        line = b"\n" + json.dumps(update).encode() + b"\n"
        if os.write(self._pipe, line) < len(line):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """What changes with a file, through links too; None where there is none."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
