"""A log that never waits for who reads it.

A log collector that stalls fills the pipe, and a launcher that waited for it would read its
children's lines no more, until they wait too: clients would wait for a log. So would a router whose
launcher is stopped, by Ctrl-Z for instance. Beyond PENDING bytes lines are dropped instead, and
their number is said when somebody reads again.
"""

from __future__ import annotations

import os
import select
import time

PENDING = 1 << 20  # bytes kept for a reader who is late
PORTION = select.PIPE_BUF  # a pipe that can be written to takes so many bytes at once
LAST_SECONDS = 2.0  # for a reader to take what is left at the end


class Outlet:
    """Like a text file of a descriptor. `write` raises OSError when the reader is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._pending = bytearray()
        self._dropped = 0  # lines

    def write(self, text: str) -> None:
        """Whole lines."""
        self._send(0)
        if len(self._pending) >= PENDING:
            self._dropped += text.count("\n")
            return
        if self._dropped:
            lost, self._dropped = self._dropped, 0
            self._pending += f"({lost} log lines were dropped: nobody read them)\n".encode()
        self._pending += text.encode(errors="backslashreplace")
        self._send(0)

    def close(self) -> None:
        """Give the reader a moment."""
        self._send(LAST_SECONDS)

    def _send(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._pending:
            if not self._poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                return
            # whole lines where possible: other processes may write to the same pipe
            portion = self._pending.rfind(b"\n", 0, PORTION) + 1 or PORTION
            written = os.write(self._descriptor, self._pending[:portion])
            del self._pending[:written]
