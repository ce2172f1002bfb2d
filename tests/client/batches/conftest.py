"""A small real HTTP server that answers chats by their last word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web


class ChatServer:
    """Counts what it is asked; `behave` says the status of a request, by its content."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.seconds = 0.0  # that an answer takes
        self.behave: Callable[[str], int] = lambda content: 200

    async def chat(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        content = body["messages"][-1]["content"]
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        await asyncio.sleep(self.seconds)
        self.in_flight -= 1
        self.asked.append(content)
        status = self.behave(content)
        if status != 200:
            return web.json_response({"error": {"message": f"no: {content}"}}, status=status)
        message = {"role": "assistant", "content": content.upper()}
        return web.json_response({"choices": [{"message": message}]})


@pytest.fixture
def chat_server() -> Iterator[tuple[ChatServer, str]]:
    server, loop = ChatServer(), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

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
