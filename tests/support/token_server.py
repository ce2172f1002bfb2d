"""A small real HTTP server that speaks the protocols of `penstock.bench`, one token an event."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class TokenServer:
    """Streams as many tokens as were asked; `behave` may answer otherwise, by a request's number.

    refuse: 429. error: an error event instead of the end. hang: no end. two: two tokens an event.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.flushed = 0
        self.in_flight = self.most_in_flight = 0
        self.behave: Callable[[int], str] = lambda index: "ok"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/flush_cache", self.flush)
        for path, shape in SHAPES.items():
            app.router.add_post(path, self.handler(shape))
        return app

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def flush(self, request: web.Request) -> web.Response:
        self.flushed += 1
        return web.Response()

    def handler(self, shape: Callable[..., Iterator[Any]]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            behaviour = self.behave(len(self.bodies))
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            if behaviour == "refuse":
                return web.json_response({"error": "overloaded"}, status=429)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                for event in shape(body, behaviour):
                    text = event if isinstance(event, str) else json.dumps(event)
                    await response.write(f"data: {text}\n\n".encode())
                    await asyncio.sleep(0.002)
                if behaviour == "hang":
                    await asyncio.sleep(60)
            finally:
                self.in_flight -= 1
            return response

        return handle


def _completion(body: dict[str, Any], behaviour: str) -> Iterator[Any]:
    step = 2 if behaviour == "two" else 1
    along = body["stream_options"].get("continuous_usage_stats")
    usage = {"prompt_tokens": _size(body["prompt"]), "completion_tokens": 0}
    for index in range(0, body["max_tokens"], step):
        usage["completion_tokens"] = min(index + step, body["max_tokens"])
        yield {"choices": [{"text": f"t{index}"}], "usage": usage if along else None}
    yield from _end(usage, behaviour)


def _chat(body: dict[str, Any], behaviour: str) -> Iterator[Any]:
    yield {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    size = body["max_completion_tokens"]
    for index in range(size):
        yield {"choices": [{"delta": {"content": f"t{index}"}}]}
    words = _size(body["messages"][0]["content"])
    yield from _end({"prompt_tokens": 5 + words, "completion_tokens": size}, behaviour)


def _end(usage: dict[str, Any], behaviour: str) -> Iterator[Any]:
    if behaviour == "hang":
        return
    if behaviour == "error":
        yield {"error": {"message": "broken"}}
        return
    yield {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 3}}}
    yield "[DONE]"


def _tgi(body: dict[str, Any], behaviour: str) -> Iterator[Any]:
    size = body["parameters"]["max_new_tokens"]
    for index in range(size):
        details = {"generated_tokens": size, "input_length": 2 * _size(body["inputs"])}
        last = index + 1 == size
        yield {"token": {"id": index}, "details": details if last else None}


def _sglang(body: dict[str, Any], behaviour: str) -> Iterator[Any]:
    prompt = body.get("text") or body["input_ids"]
    for index in range(body["sampling_params"]["max_new_tokens"]):
        said = {"prompt_tokens": _size(prompt), "completion_tokens": index + 1, "cached_tokens": 3}
        yield {"text": "x" * index, "meta_info": said}
    yield "[DONE]"


def _size(prompt: str | list[int]) -> int:
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


SHAPES = {
    "/v1/completions": _completion,
    "/v1/chat/completions": _chat,
    "/generate_stream": _tgi,
    "/generate": _sglang,
}


@contextmanager
def running_token_server() -> Iterator[tuple[TokenServer, str]]:
    """The server in a thread of its own, and its URL."""
    server = TokenServer()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.app(), handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server, asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
