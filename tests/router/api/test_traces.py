"""Traces of requests, as a real collector's protocol brings them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from penstock_router.api.service import SERVICE
from support.fake_engine import FakeEngine

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = [a.value.string_value for a in resource.resource.attributes
                     if a.key == "service.name"]  # fmt: skip
            self.services.update(names)
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@contextlib.contextmanager
def collecting(protocol: str = "grpc") -> Iterator[tuple[Collector, dict[str, str]]]:
    """A collector, and how a server is told of it."""
    collector = Collector()
    with (over_grpc if protocol == "grpc" else over_http)(collector) as endpoint:
        yield collector, {"otlp_endpoint": endpoint, "otlp_protocol": protocol}


@contextlib.contextmanager
def over_http(collector: Collector) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            good = self.path == "/v1/traces"
            good &= self.headers["content-type"] == "application/x-protobuf"
            if good:
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                answer = collector.Export(request, None).SerializeToString()
            self.send_response(200 if good else 404)
            self.send_header("content-length", str(len(answer) if good else 0))
            self.end_headers()
            self.wfile.write(answer if good else b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def over_grpc(collector: Collector) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


async def flushed(client: Any) -> None:
    await asyncio.to_thread(client.app[SERVICE].traces.flush)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("stream", [False, True])
async def test_spans_of_a_request(serve: Any, stream: bool, protocol: str) -> None:
    with collecting(protocol) as (collector, options):
        client = await serve(FakeEngine(cached_tokens=2), **options, otlp_service_name="mine")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "n": 2,
                "stream": stream}  # fmt: skip
        url = client.url + "/v1/chat/completions"
        async with client.session.post(url, json=body, headers=headers) as response:
            await response.read()
        await flushed(client)
        [root] = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
        assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
        assert root.name == "POST /v1/chat/completions" and collector.services == {"mine"}
        inner = [span for span in collector.spans if span is not root]
        names = sorted(span.name for span in inner)
        assert names == sorted(["validation", *["queue", "prefill", "decode"] * 2])
        assert all(span.parent_span_id == root.span_id for span in inner)
        found = {a.key: a.value.int_value or a.value.string_value for a in root.attributes}
        assert found["gen_ai.usage.output_tokens"] == 10
        assert found["penstock.request_id"] == response.headers["x-request-id"]
        for span in inner:
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano
        first = [s for s in inner for a in s.attributes
                 if a.key == "penstock.sequence" and not a.value.int_value]  # fmt: skip
        queue, prefill, decode = sorted(first, key=lambda s: s.start_time_unix_nano)
        assert (queue.name, prefill.name, decode.name) == ("queue", "prefill", "decode")
        assert queue.end_time_unix_nano == prefill.start_time_unix_nano
        assert prefill.end_time_unix_nano == decode.start_time_unix_nano


async def test_failures_and_what_is_not_sampled(serve: Any) -> None:
    with collecting() as (collector, options):
        client = await serve(**options)
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        await client.post("/generate", {"inputs": "hi"}, headers=unsampled)
        await client.post("/generate", {"inputs": ""})
        await flushed(client)
        [root] = collector.spans[-1:]
        assert len(collector.spans) == 2  # with its validation
        assert root.status.message == "Input validation error: `inputs` cannot be empty"
        assert root.trace_id.hex() != TRACE


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_no_collector(serve: Any, protocol: str) -> None:
    """Nobody waits for it."""
    client = await serve(otlp_endpoint="http://127.0.0.1:9", otlp_protocol=protocol)
    assert (await client.post("/generate", {"inputs": "hi"}))[0] == 200
