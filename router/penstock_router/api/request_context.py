"""One HTTP request that generates: its clock, what is counted of it, its line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web

from penstock_router.api.bodies import BODY_BYTES, SMALL_BYTES
from penstock_router.api.body_shape import MOST_VALUES, fault_of
from penstock_router.api.connection import Connection
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.fields import checked
from penstock_router.api.no_numbers import place_of_no_number
from penstock_router.api.quota import LEASE, named
from penstock_router.api.refusal import TARGET, log_failure
from penstock_router.api.request_id import request_id
from penstock_router.api.schema import M
from penstock_router.api.sequence_group import SequenceListener
from penstock_router.api.service import SERVICE, Service
from penstock_router.api.time_limit import TimeLimit
from penstock_router.logs import log
from penstock_router.request import Finish

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ContextHandler = Callable[["RequestContext"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class RequestStats:
    """What a request took. Times are seconds; those of the slowest of several sequences."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float
    prompt_tokens: int  # every prompt once
    cached_tokens: int
    generated_tokens: int

    def headers(self) -> dict[str, str]:
        """The same as headers of an answer that is sent at once."""
        return {
            "x-compute-time": f"{self.total:.6f}",
            "x-total-time": _milliseconds(self.total),
            "x-validation-time": _milliseconds(self.validation),
            "x-queue-time": _milliseconds(self.queue),
            "x-inference-time": _milliseconds(self.inference),
            "x-time-per-token": _milliseconds(self.per_token),
            "x-prompt-tokens": str(self.prompt_tokens),
            "x-cached-tokens": str(self.cached_tokens),
            "x-generated-tokens": str(self.generated_tokens),
        }


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
        total = time.monotonic() - self._start
        validation = self._validated - self._start
        ends = [listener.end for listener in listeners]
        per_token = [_per_token(end) for end in ends]
        stats = RequestStats(
            total=total,
            validation=validation,
            queue=max(end.queue_seconds for end in ends),
            inference=max(end.total_seconds - end.queue_seconds for end in ends),
            per_token=max(per_token),
            prompt_tokens=_prompt_tokens(listeners),
            cached_tokens=sum(end.cached_tokens for end in ends),
            generated_tokens=sum(end.generated_tokens for end in ends),
        )
        self.service.metrics.on_success(total, validation, per_token)
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


async def read_json(request: web.Request) -> object:
    """The body of a request. Raises ApiError when it is late, too large or no JSON."""
    if request.content_type != "application/json" and not request.content_type.endswith("+json"):
        raise ApiError(Kind.MEDIA_TYPE, "Expected request with `Content-Type: application/json`")
    service = request.app[SERVICE]
    bodies = service.bodies
    data = await bodies.read(request)
    request[BODY_BYTES] = len(data)
    if len(data) > SMALL_BYTES:
        most = max(MOST_VALUES, service.engine.limits.max_input_tokens)
        if fault := await asyncio.to_thread(fault_of, data, most):
            raise invalid(f"the body must have {fault}")
    async with bodies.turn(len(data)):
        try:
            value: object = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise await _no_json(data, error) from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    return value


async def _no_json(data: bytes, error: orjson.JSONDecodeError) -> ApiError:
    if (found := await asyncio.to_thread(place_of_no_number, data)) is not None:
        place, value = found
        return invalid(f"`{place}` must be a finite number: {value} was given, which is no JSON")
    return ApiError(Kind.BAD_REQUEST, f"The body is not valid JSON: {error}")


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _per_token(end: Finish) -> float:
    return (end.total_seconds - end.queue_seconds) / max(end.generated_tokens, 1)


def _prompt_tokens(listeners: Sequence[SequenceListener]) -> int:
    """Every prompt once, however many sequences continue it."""
    return sum(
        {
            id(listener.request.prompt): len(listener.request.prompt) for listener in listeners
        }.values()
    )
