"""The load generator against a small real HTTP server: it counts what was sent, and what failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from benchmarks.cases import Case
from benchmarks.load import Target, run_case

from penstock.bench.lengths import Lengths

OUTPUT = 5


class Server:
    """Streams as many tokens as were asked; `behave` may answer otherwise."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0
        self.behave: Callable[[int], str] = lambda index: "ok"

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        behaviour = self.behave(len(self.bodies))
        self.bodies.append(body)
        if behaviour == "refuse":
            return web.json_response({"error": "overloaded"}, status=429)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await self.stream(response, body, behaviour)
        finally:
            self.in_flight -= 1
        return response

    async def stream(
        self, response: web.StreamResponse, body: dict[str, Any], behaviour: str
    ) -> None:
        for index in range(body["max_tokens"]):
            await self.event(response, {"choices": [{"text": f"t{index}"}], "usage": None})
            await asyncio.sleep(0.002)
        if behaviour == "hang":
            await asyncio.sleep(60)
        if behaviour == "error":
            await self.event(response, {"error": {"message": "broken"}})
            return
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        usage |= {"prompt_tokens_details": {"cached_tokens": 3}}  # type: ignore[dict-item]
        await self.event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")

    async def event(self, response: web.StreamResponse, content: dict[str, Any]) -> None:
        text = json.dumps(content, separators=(",", ":"))
        await response.write(f"data: {text}\n\n".encode())


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Target]]:
    handler = Server()
    app = web.Application()
    app.router.add_get("/v1/models", handler.models)
    app.router.add_post("/v1/completions", handler.completions)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield handler, Target(url=f"http://127.0.0.1:{port}", processes=2, max_seconds=20)
    await runner.cleanup()


CASE = Case("small", 3, 8, Lengths.parse("6"), Lengths.parse(str(OUTPUT)), 4)


async def run(target: Target, **options: Any) -> dict[str, Any]:
    case = options.pop("case", CASE)
    return await asyncio.to_thread(run_case, target, case, **options)


async def test_closed_loop_counts_and_limits(server: tuple[Server, Target]) -> None:
    handler, target = server
    figures = await run(target, seed=1)
    assert (figures["completed"], figures["failed"], figures["cut"]) == (8, 0, 0)
    assert figures["output_tokens"] == 8 * OUTPUT
    assert (figures["prompt_tokens"], figures["cached_tokens"]) == (8 * 6, 8 * 3)
    assert handler.most_in_flight == 3
    asked = handler.bodies[0]
    assert asked["ignore_eos"] and asked["stream_options"] == {"include_usage": True}
    assert asked["model"] == "m" and asked["max_tokens"] == OUTPUT
    assert len({tuple(b["prompt"]) for b in handler.bodies}) == 8
    assert len({tuple(b["prompt"][:4]) for b in handler.bodies}) == 1
    spreads = [figures[name] for name in ("ttft_ms", "tpot_ms", "itl_ms", "request_ms")]
    assert all(0 < each["p50"] <= each["p99"] for each in spreads)


async def test_open_loop_sends_every_request(server: tuple[Server, Target]) -> None:
    _, target = server
    figures = await run(target, rate=200.0, seed=1)
    assert (figures["completed"], figures["rate"]) == (8, 200.0)


async def test_failures_are_named_and_not_counted_as_done(server: tuple[Server, Target]) -> None:
    handler, target = server
    handler.behave = lambda index: {0: "refuse", 1: "error"}.get(index, "ok")
    figures = await run(target)
    assert (figures["completed"], figures["failed"]) == (6, 2)
    names = sorted(figures["failures"])
    assert names[0].startswith('HTTP 429: {"error"') and "broken" in names[1]


async def test_a_run_is_bounded_in_time(server: tuple[Server, Target]) -> None:
    handler, target = server
    handler.behave = lambda index: "hang" if index == 7 else "ok"
    bounded = Target(url=target.url, processes=2, max_seconds=1.5)
    figures = await run(bounded)
    assert (figures["completed"], figures["cut"], figures["failed"]) == (7, 1, 0)
