"""What comes in is parsed at a pace where parsing it is dear.

A byte of a body costs a nanosecond or two, but one that stands in a chunk of its own a thousand
times as much, and so do heads without end: a client that sends nothing else would have the event
loop for itself. So bytes are parsed a piece at a time. A connection whose piece took long is not
read from until its time is paid, and all such connections together have a share of the loop.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

PIECE_BYTES = 16 * 1024
# Of the processor: what the beginning of a request and so many bytes may take, many times what
# plain ones do: nobody who asks plainly waits, however slow the machine is.
HEAD_SECONDS, BYTE_SECONDS = 0.002, 10e-9
DEAR_SECONDS = 250e-6  # beyond that, before a connection waits
# Of the event loop, for what is dear beyond that; what reads it takes as much again, and more.
SHARE = 0.05


class ParsingPace:
    """What dear pieces of all connections of a process took."""

    def __init__(self) -> None:
        self._paid = 0.0  # the moment at which what was taken is no more than the share

    def wait(self, seconds: float, now: float) -> float:
        """How long a connection waits behind pieces that took so many seconds."""
        self._paid = max(self._paid, now) + seconds / SHARE
        return self._paid - now


class PacedConnection(web.RequestHandler):
    """Hands what arrives on to `take`, and never to aiohttp."""

    parsing_pace: ParsingPace

    def __init__(self, manager: web.Server, **options: object) -> None:
        super().__init__(manager, **options)  # type: ignore[arg-type]
        self._untaken = b""
        self._taking = False
        self._dear = 0.0  # seconds of pieces that took longer than they may
        self._waiting: asyncio.TimerHandle | None = None  # for those to be paid
        self._held_up = False  # by somebody else: a reader that is behind

    def take(self, data: bytes) -> None:
        """Parse a piece of what the client sends; an empty one: go on where parsing paused."""
        super().data_received(data)

    def data_received(self, data: bytes) -> None:
        self._untaken += data
        if self._waiting is None and not self._taking:
            begins = data and self._current_request is None
            self._take_pieces(HEAD_SECONDS if begins else 0.0)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._untaken = b""
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def _take_pieces(self, allowed: float = 0.0) -> None:
        self._taking = True
        while True:
            piece, self._untaken = self._untaken[:PIECE_BYTES], self._untaken[PIECE_BYTES:]
            begun = time.thread_time()
            self.take(piece)
            seconds = time.thread_time() - begun
            self._dear += max(0.0, seconds - allowed - BYTE_SECONDS * len(piece))
            allowed = 0.0
            if self._dear > DEAR_SECONDS and self.transport is not None:
                wait = self.parsing_pace.wait(self._dear, self._loop.time())
                self._dear = 0.0
                self._waiting = self._loop.call_later(wait, self._go_on)
                super()._pause_transport_reading()
                break
            if not self._untaken:
                break
        self._taking = False

    def _go_on(self) -> None:
        self._waiting = None
        if not self._held_up:
            self._resume_transport_reading()

    def _pause_transport_reading(self) -> None:
        self._held_up = True
        super()._pause_transport_reading()

    def _resume_transport_reading(self) -> None:
        self._held_up = False
        if self._waiting is None and not self._taking:
            self._take_pieces()
        if self._waiting is None and not self._held_up:
            super()._resume_transport_reading()
