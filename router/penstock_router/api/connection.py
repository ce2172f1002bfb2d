"""A client's connection: what aiohttp leaves open about clients that leave, flood, or say nothing.

Reading never pauses behind a request that runs, because the end of a connection is only seen by
who reads: what comes in too large a number behind it is thrown away instead, and the connection
ends when what was kept of it is answered.

The end of what a client sends does not end its requests: see `half_closed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import (
    BadStatusLine,
    HttpProcessingError,
)
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.half_closed import HalfClosed, may_go_on
from penstock_router.api.malformed import describe, raw_answer
from penstock_router.api.paced_parsing import PacedConnection
from penstock_router.api.request_id import request_id
from penstock_router.api.service import SERVICE

if TYPE_CHECKING:
    from penstock_router.api.connections import Connections

DISCARD_BYTES = 4 * 1024 * 1024  # that a client may send behind what is kept
LINGER_SECONDS = 1.0  # for a refused client to read why
STUCK_SECONDS = 30.0  # in which a client must read of what waits for it
STUCK_BYTES = 64 * 1024  # so much, or all of it

# The parser knows 0.9, a line without a version, and 2.0 as well, and answers would bear these.
VERSIONS = (HttpVersion10, HttpVersion11)


class Connection(PacedConnection):
    """See the module. The parts that decide nothing are aiohttp's."""

    def __init__(self, connections: Connections, **options: object) -> None:
        super().__init__(connections, **options)
        self.parsing_pace = connections.parsing_pace
        self.client: str | None = None  # None: not counted
        self._connections = connections
        self._wire: asyncio.Transport | None = None  # until it is lost
        self.answering = False  # something of an answer may be on its way
        self.say_something: Callable[[], None] | None = None  # of the answer that is: a stream
        self._deaf = False  # what still comes is thrown away
        self._made = self._loop.time()
        self._asked = False  # a request has come
        self._discarded = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._half_closed: HalfClosed | None = None  # its client sends no more
        self._unsent = 0  # bytes that waited for the client to read them when it last read
        self._unsent_since = 0.0

    @property
    def idle(self) -> bool:
        """No request runs or waits, though one may have begun to arrive."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages

    def expects(self, young: float) -> bool:
        """A request is on its way: it has begun to arrive, or the connection was made for one less
        than `young` seconds ago."""
        is_new = not self._asked and self._loop.time() - self._made < young
        return self._wire is not None and self.idle and (is_new or self._head_timer is not None)

    @property
    def running(self) -> web.BaseRequest | None:
        """The request that runs."""
        return self._current_request

    @property
    def _encrypted(self) -> bool:
        return self._wire is not None and self._wire.get_extra_info("sslcontext") is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        if (error := self._connections.admit(self)) is not None:
            self._refuse(error)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        if self._half_closed is not None:
            self._half_closed.stop()
            self._half_closed = None  # which knows this connection
        super().connection_lost(exc)
        self._wire = None

    def abort(self) -> None:
        """End the connection; what runs on it is cancelled."""
        if self._wire is not None:
            self._wire.abort()

    def end(self) -> None:
        """End the connection in order, unless its client does not even read what there was."""
        if self._wire is not None and self._wire.get_write_buffer_size():
            self.abort()
        else:
            self.force_close()

    # -- what comes ------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        if self._deaf:
            self._discarded += len(data)
            if self._discarded > DISCARD_BYTES:
                self.abort()
            return
        super().take(data)
        self._look_for_faults()
        if not self.idle:
            self._stop_head_timer()
        elif data and self._head_timer is None:
            seconds = self._connections.waits.head
            self._head_timer = self._loop.call_later(seconds, self._on_late_head)

    def _look_for_faults(self) -> None:
        """A request of another version than ours becomes what a malformed one is. Nothing can be
        made of what comes behind either: each part would be another fault, as large as itself."""
        for place, (message, _) in enumerate(self._messages):
            if isinstance(message, _ErrInfo):
                message.exc.__traceback__ = None  # its frames know it, and all that was read
                self._deaf = True
            elif message.version not in VERSIONS:
                error = BadStatusLine()
                self._messages[place] = _ErrInfo(400, error, error.message), EMPTY_PAYLOAD

    def pause_reading(self) -> None:
        """A body has arrived faster than it is read: that of this request, or of a later one."""
        request = self._current_request
        if request is not None and request.content.is_eof():
            self._hear_no_more()
        else:
            super().pause_reading()

    def _pause_reading_for_buffer(self) -> None:
        """As many requests as may wait do."""
        self._hear_no_more()

    def _resume_reading_if_drained(self) -> None:
        """Nothing was paused."""

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: object
    ) -> tuple[web.StreamResponse, bool]:
        self.answering, self.say_something, self._asked = False, None, True
        if self._reading_paused and request.content.is_eof():
            # It was the body of a later one, before anybody knew.
            self._hear_no_more()
            self.resume_reading(resume_parser=False)
        await self._connections.starting.turn(self.client or "")
        try:
            answer = await super()._handle_request(request, start_time, request_handler)  # type: ignore[arg-type]
            if not request.content.is_eof():
                await self._connections.refused_pace.throw_away(request.content, self)
            return answer
        finally:
            self.say_something = None  # which knows this connection

    def _hear_no_more(self) -> None:
        """Answer what has arrived in full, and end."""
        if self._deaf:
            return
        self._deaf = True
        messages = self._messages
        if messages and not messages[-1][1].is_eof():
            messages.pop()  # the rest of its body will not come
        if not messages:
            self._close = True
            return
        message, payload = messages[-1]
        if not isinstance(message, _ErrInfo):  # behind which it ends anyway
            messages[-1] = (message._replace(should_close=True), payload)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self.idle:
            self._refuse(ApiError(Kind.TIMEOUT, f"{self._connections.waits.head:g}"))

    def _refuse(self, error: ApiError) -> None:
        """Say why, and end."""
        self._connections.note("INFO", str(error), self.peername)
        self._deaf = True
        if self._wire is not None:
            self._wire.write(raw_answer(error))
            if self._wire.can_write_eof():  # not where it is encrypted
                self._wire.write_eof()
        self._loop.call_later(LINGER_SECONDS, self.abort)

    # -- who sends no more -----------------------------------------------------------------------

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Whether the connection stays: while something runs whose client may still read."""
        request = self._current_request
        if self._encrypted:
            return None  # TLS ends in both directions, whatever is answered here
        if self._half_closed is not None:  # uvloop may say it twice
            return True
        waiting = len(self._messages) - (self._waiter is not None)  # one of them is about to run
        crowded = self._deaf or waiting > 0
        self._hear_no_more()
        if self.idle or self._wire is None:
            return None
        if request is not None and not may_go_on(self, request):
            return None
        self._half_closed = HalfClosed(self, self._wire, crowded)
        return True

    # -- who reads nothing -----------------------------------------------------------------------

    def unsent(self, now: float) -> int:
        """Bytes that the client has not read yet. Ends the connection if it reads nothing."""
        wire = self._wire
        if wire is None:
            return 0
        size = wire.get_write_buffer_size()
        # A stream that goes on may have a little in its buffer whenever somebody looks.
        little = 0 if self._current_request is None else STUCK_BYTES
        if size <= little or size <= self._unsent - STUCK_BYTES or not self._unsent:
            self._unsent, self._unsent_since = size, now
        elif now - self._unsent_since > STUCK_SECONDS:
            self._connections.on_stuck(self)
            self.abort()
        return size

    # -- what is no HTTP -------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Our own answer, and a line in the log without what the client sent."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone, which is no fault and needs no answer
        if isinstance(exc, HttpProcessingError):
            error = ApiError(Kind.BAD_REQUEST, describe(exc))
            self._connections.note("INFO", f"malformed request: {error}", self.peername)
        else:
            error = ApiError(Kind.INTERNAL)
            self.logger.error("Fault", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is sent already")
        response = error.response(request.path)
        response.headers[hdrs.SERVER] = "penstock"
        response.headers["x-request-id"] = request_id(cast(web.Request, request))
        response.force_close()
        return response


async def note_answer(request: web.Request, response: web.StreamResponse) -> None:
    """A signal of the application: a head is about to be sent."""
    if isinstance(request.protocol, Connection):
        request.protocol.answering = True


async def say_goodbye(request: web.Request, response: web.StreamResponse) -> None:
    """A signal of the application: before the server ends every answer is its connection's last,
    so that whoever goes on goes elsewhere, and no request is on its way when the rest is closed."""
    if request.app[SERVICE].engine.withdrawn:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"  # aiohttp has looked already
