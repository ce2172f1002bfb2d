"""Traces of requests, for a collector that speaks OTLP over gRPC or HTTP.

Spans are made when a request has ended, of times that are known by then: nothing is done for a
token. A thread of the library sends them. The libraries are those of the extra `otlp`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock_router.request import Finish

_EXPORT_SECONDS = 5  # for a collector to answer
_SCOPE = "penstock_router"


@dataclass(frozen=True, slots=True)
class Served:
    """A request that has ended. Times are seconds."""

    name: str  # method and route
    headers: Mapping[str, str]  # of the request: `traceparent` says what it is part of
    total: float
    validation: float  # from its arrival until its sequences were submitted
    ends: Sequence[Finish]  # of its sequences
    attributes: Mapping[str, str | int]
    error: str | None = None  # why it failed


class Traces:
    """Makes spans and hands them to the library's thread."""

    def __init__(self, endpoint: str, protocol: str | None, service_name: str) -> None:
        """endpoint: as `http://host:4317`, or `http://host:4318/v1/traces` for the protocol
        `http/protobuf`; TLS is for `https`."""
        resource = Resource.create({"service.name": service_name})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        make = _over_http if protocol == "http/protobuf" else _over_grpc
        self._provider.add_span_processor(BatchSpanProcessor(make(endpoint)))
        self._tracer = self._provider.get_tracer(_SCOPE)
        self._context = TraceContextTextMapPropagator()

    def record(self, served: Served) -> None:
        """A span of the request, and of each sequence its waits."""
        end = time.time_ns()
        start = end - _nanoseconds(served.total)
        carrier = {name.lower(): value for name, value in served.headers.items()}
        span = self._tracer.start_span(
            served.name,
            context=self._context.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=dict(served.attributes),
            start_time=start,
        )
        if served.error is not None:
            span.set_status(Status(StatusCode.ERROR, served.error))
        if span.is_recording():
            inside = set_span_in_context(span)
            submitted = start + _nanoseconds(served.validation)
            self._span("validation", inside, start, submitted)
            for index, finish in enumerate(served.ends):
                self._sequence(inside, submitted, index, finish)
        span.end(end)

    def flush(self) -> None:
        """Send what there is; may wait for the collector."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what there is, and end the thread."""
        self._provider.shutdown()

    def _sequence(self, inside: Context, start: int, index: int, finish: Finish) -> None:
        queued = start + _nanoseconds(finish.queue_seconds)
        first = start + _nanoseconds(finish.first_token_seconds)
        end = start + _nanoseconds(finish.total_seconds)
        which = {"penstock.sequence": index}
        self._span("queue", inside, start, queued, which)
        cached = {"penstock.cached_tokens": finish.cached_tokens}
        self._span("prefill", inside, queued, first, which | cached)
        generated = {"gen_ai.usage.output_tokens": finish.generated_tokens}
        self._span("decode", inside, first, end, which | generated)

    def _span(
        self, name: str, inside: Context, start: int, end: int, attributes: Mapping[str, int] = {}
    ) -> None:
        span = self._tracer.start_span(
            name, context=inside, start_time=start, attributes=dict(attributes)
        )
        span.end(end)


def _over_grpc(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    insecure = not endpoint.startswith("https://")
    return OTLPSpanExporter(endpoint, insecure=insecure, timeout=_EXPORT_SECONDS)


def _over_http(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS, compression=Compression.Gzip)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
