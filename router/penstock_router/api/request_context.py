"""One HTTP request that generates: its clock, what is counted of it, its line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from penstock_router.api.connection import Connection
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.fields import checked
from penstock_router.api.json_body import read_json
from penstock_router.api.quota import LEASE, named
from penstock_router.api.refusal import TARGET, log_failure
from penstock_router.api.request_id import request_id
from penstock_router.api.request_stats import RequestStats, seconds_per_token
from penstock_router.api.schema import M
from penstock_router.api.sequence_group import SequenceListener
from penstock_router.api.service import SERVICE, Service
from penstock_router.api.time_limit import TimeLimit
from penstock_router.logs import log
from penstock_router.request import Finish

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ContextHandler = Callable[["RequestContext"], Awaitable[web.StreamResponse]]


class RequestContext:
    """The request, what it needs of the server, and when it reached which stage."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.service: Service = request.app[SERVICE]
        self.id = request_id(request)
        self.limit = TimeLimit(request)
        self.lease = request.get(LEASE)  # None: nothing is counted for a key
        # Not the event loop's clock: uvloop's ticks in milliseconds.
        self._start = time.monotonic()
        self._validated = self._start

    @property
    def user_agent(self) -> str:
        """What the client says it is."""
        return self.request.headers.get("User-Agent", "")

    @property
    def client(self) -> str:
        """Who asks: the owner of a key that has a name, else an address; empty where neither is
        known."""
        request = self.request
        if key := named(request).get("key"):
            return key
        connection = request.protocol
        if isinstance(connection, Connection) and connection.client is not None:
            return connection.client
        return self.service.clients.of_request(request) or ""

    async def json(self) -> object:
        """The body. Raises ApiError when it is late, too large or no JSON."""
        return await read_json(self.request)

    async def body(self, model: type[M]) -> M:
        """The body as an object of a schema."""
        return await checked(self.request, model, await self.json())

    def priority(self) -> int:
        """What the header `x-priority` says; a parameter of the body wins over it."""
        text = self.request.headers.get("x-priority")
        if text is None:
            return 0
        try:
            value = int(text)
        except ValueError:
            value = 101
        if not -100 <= value <= 100:
            raise invalid("the header `x-priority` must be an integer >= -100 and <= 100")
        return value

    def validated(self) -> None:
        """The request is about to be submitted."""
        self._validated = time.monotonic()

    def early_headers(self, characters: int) -> dict[str, str]:
        """Headers that are known before the first token."""
        device = self.service.engine.limits.device
        kind = "gpu+optimized" if device == "cuda" else device
        return {"x-compute-type": kind, "x-compute-characters": str(characters)}

    def succeed(self, listeners: Sequence[SequenceListener], seed: int | None) -> RequestStats:
        """Count and log the request."""
        self.limit.stop()
        ends = [listener.end for listener in listeners]
        total, validation = time.monotonic() - self._start, self._validated - self._start
        stats = RequestStats.of(listeners, total, validation)
        self.service.metrics.on_success(total, validation, list(map(seconds_per_token, ends)))
        self._trace(None, ends, stats)
        log(
            "INFO",
            "Success",
            target=TARGET,
            request_id=self.id,
            method=self.request.method,
            route=self.request.path,
            **named(self.request),
            status=200,
            total_time=round(total, 6),
            validation_time=round(validation, 6),
            queue_time=round(stats.queue, 6),
            inference_time=round(stats.inference, 6),
            time_per_token=round(stats.per_token, 6),
            prompt_tokens=len(listeners[0].request.prompt),
            generated_tokens=stats.generated_tokens,
            cached_tokens=ends[0].cached_tokens,
            seed=seed,
        )
        return stats

    def fail(self, error: ApiError) -> None:
        """Count and log the request that ended with an error."""
        self.limit.stop()
        self.service.metrics.on_failure(error.row.failure)
        log_failure(self.request, error)
        self._trace(str(error))

    def broke(self) -> None:
        """Count and log a fault of ours, with its trace."""
        logging.getLogger(TARGET).exception("Fault", extra={"fields": {"request_id": self.id}})
        self.fail(ApiError(Kind.INTERNAL))

    def drop(self, reason: str) -> None:
        """Count and log the request whose client is not there any more."""
        self.service.metrics.on_failure("dropped")
        self._trace(f"dropped: {reason}")
        log(
            "INFO",
            "Dropped",
            target=TARGET,
            request_id=self.id,
            method=self.request.method,
            route=self.request.path,
            **named(self.request),
            reason=reason,
        )

    def _trace(
        self, error: str | None, ends: Sequence[Finish] = (), stats: RequestStats | None = None
    ) -> None:
        """Tell the collector of traces, if there is one."""
        if self.service.traces is None:
            return
        from penstock_router.traces import Served  # its libraries are an extra

        attributes: dict[str, str | int] = {
            "http.request.method": self.request.method,
            "http.route": self.request.path,
            "gen_ai.request.model": self.service.model_name,
            "penstock.request_id": self.id,
        }
        if stats is not None:
            attributes["gen_ai.usage.input_tokens"] = stats.prompt_tokens
            attributes["gen_ai.usage.output_tokens"] = stats.generated_tokens
        self.service.traces.record(
            Served(
                name=f"{self.request.method} {self.request.path}",
                headers=self.request.headers,
                total=time.monotonic() - self._start,
                validation=self._validated - self._start,
                ends=ends,
                attributes=attributes,
                error=error,
            )
        )


def generating(handler: ContextHandler) -> Handler:
    """A handler of a route that generates, with everything that all of them need."""

    async def handle(request: web.Request) -> web.StreamResponse:
        context = RequestContext(request)
        metrics = context.service.metrics
        metrics.on_request()
        try:
            if context.service.engine.draining:
                raise ApiError(Kind.DRAINING)
            with context.service.clients.serving(request):
                async with context.limit.running(context.service.config.max_request_time):
                    return await handler(context)
        except ApiError as error:
            context.fail(error)
            raise
        except (asyncio.CancelledError, ConnectionError):
            metrics.on_disconnect()
            context.drop("disconnected")
            raise
        except Exception as error:
            context.broke()
            raise ApiError(Kind.INTERNAL) from error

    return handle


def logged(handler: Handler) -> Handler:
    """A handler of a route that generates nothing, with its line in the log."""

    async def handle(request: web.Request) -> web.StreamResponse:
        start = time.monotonic()
        response = await handler(request)
        log(
            "INFO",
            "Success",
            target=TARGET,
            request_id=request_id(request),
            method=request.method,
            route=request.path,
            **named(request),
            status=response.status,
            total_time=round(time.monotonic() - start, 6),
        )
        return response

    return handle
