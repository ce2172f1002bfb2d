"""Programs on a terminal of their own: what a person types, and what the screen gets."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

SECONDS = 120.0


class Terminal:
    """A program that runs on one."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.process, self._screen = pty.fork()
        if self.process == 0:
            os.execve(command[0], list(command), dict(environ))
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Keys; \\r is Enter, \\x03 Ctrl-C, \\x04 Ctrl-D."""
        os.write(self._screen, text.encode())

    def wait(self, pattern: str) -> str:
        """Until something new on the screen matches; what does."""
        found = self._found(pattern, time.monotonic() + SECONDS)
        assert found is not None, self.shown
        return found

    def interrupt(self, pattern: str) -> str:
        """Ctrl-C, and what matches then. One that comes between readline's last look for signals
        and its sleep is seen with the next key only (CPython's input() has no way around that), and
        slow system calls make it likely: so it is typed again, as a person would."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.type("\x03")
            if (found := self._found(pattern, time.monotonic() + 1)) is not None:
                return found
        raise AssertionError(self.shown)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            assert time.monotonic() < deadline, self.shown
        _, status = os.waitpid(self.process, 0)
        self.process = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._screen)

    def _found(self, pattern: str, deadline: float) -> str | None:
        while not (match := re.compile(pattern).search(self.shown, self._seen)):
            if time.monotonic() >= deadline or not self._read(deadline):
                return None
        self._seen = match.end()
        return match[0]

    def _read(self, deadline: float) -> bool:
        """False at the end."""
        if not select.select([self._screen], [], [], max(deadline - time.monotonic(), 0))[0]:
            return True
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # how Linux says that the program has closed it
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def on_terminal(*command: str, **environ: str) -> Iterator[Terminal]:
    """The program, ended with the block."""
    terminal = Terminal(command, {**os.environ, "TERM": "xterm", **environ})
    try:
        yield terminal
    finally:
        terminal.close()
