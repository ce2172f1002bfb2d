"""How long a request may take: the least of what the operator, a header and the body say."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

from aiohttp import web

from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.schema import ClientObject
from penstock_router.api.schema_types import Seconds

HEADER = "x-request-timeout"
MOST_SECONDS = 1e6

_KEY = web.RequestKey("time_limit", object)


class TimeLimited(ClientObject):
    """A body that may say how long it is wanted."""

    timeout: Seconds | None = None


class TimeLimit:
    """Of one request, counted from its head. When it is up, what is being done is cancelled."""

    def __init__(self, request: web.Request) -> None:
        self._header = request.headers.get(HEADER)  # the request itself would make a cycle
        self._begun = asyncio.get_running_loop().time()
        self._seconds = math.inf
        self._timer = asyncio.timeout(None)
        self._ended = False  # a timer that was left takes no other time
        request[_KEY] = self

    @contextlib.asynccontextmanager
    async def running(self, most: float | None) -> AsyncIterator[None]:
        """What is done for the request. Raises ApiError when it took too long, and for a header
        that is no time.

        most: seconds; None: any.
        """
        async with self._timer:
            try:
                for seconds in (most, _of_header(self._header)):
                    if seconds is not None:
                        self.narrow(seconds)
                with self.converting():
                    yield
            finally:
                self._ended = True

    def narrow(self, seconds: float) -> None:
        """It takes no longer than this either."""
        if seconds < self._seconds and not self._timer.expired():
            self._seconds = seconds
            self._timer.reschedule(self._begun + seconds)

    def stop(self) -> None:
        """All is done but for sending. Harmless behind the end."""
        if self._seconds < math.inf and not self._ended and not self._timer.expired():
            self._timer.reschedule(None)

    @contextlib.contextmanager
    def converting(self) -> Iterator[None]:
        """Raises ApiError where the block was cancelled because the time is up."""
        try:
            yield
        except asyncio.CancelledError:
            if self._timer.expired():
                raise ApiError(Kind.DEADLINE, self._seconds, NO_RETRY) from None
            raise


# What OpenAI's and Anthropic's libraries obey; else they would send it twice more.
NO_RETRY = {"x-should-retry": "false"}


def narrow(request: web.Request, body: object) -> None:
    """A body was read that may limit the time of its request."""
    limit = request.get(_KEY)
    if isinstance(limit, TimeLimit) and isinstance(body, TimeLimited) and body.timeout is not None:
        limit.narrow(body.timeout)


def _of_header(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise invalid(f"the header `{HEADER}` must be a number of seconds > 0 and <= 1000000")
    return seconds
