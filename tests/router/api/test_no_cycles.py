"""No request leaves a ring of objects that know each other: the collector comes by too seldom.

An error knows the frames that it came through, and they know the client's text. Where one of them
knows the error too, megabytes stay for as long as nobody collects.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import pytest

from router.api.conftest import beside_only
from support.fake_engine import FakeEngine

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LONG = "7" * 300_000
DEEP: Any = {"v": "x"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **fields}


REQUESTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "an answer": ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 2}}, 200),
    "a chat": (CHAT, chat("x"), 200),
    "tokens": ("/tokenize", {"inputs": "x"}, 200),
    "too long": ("/generate", {"inputs": LONG}, 422),
    "too long by a little": ("/generate", {"inputs": "7" * 2000}, 422),
    "too long for chat": (CHAT, chat(LONG), 422),
    "too long for /chat_tokenize": ("/chat_tokenize", chat(LONG), 422),
    "too long for /tokenize": ("/tokenize", {"inputs": LONG}, 422),
    "too long for /v1": (COMPLETIONS, {"prompt": LONG}, 422),
    "a wrong field": ("/generate", {"inputs": LONG, "parameters": {"top_p": 7}}, 422),
    "a long wrong field": (CHAT, chat("x", stop=LONG), 422),
    "too many ids": (COMPLETIONS, {"prompt": [5] * 100_000}, 422),
    "ids beyond the model": (COMPLETIONS, {"prompt": [2**31]}, 422),
    "too many things": (COMPLETIONS, {"prompt": [[]] * 70_000}, 422),
    "a name of the template": (CHAT, chat(LONG, chat_template_kwargs={"self": 1}), 422),
    "no grammar": (
        "/generate",
        {"inputs": "x", "parameters": {"grammar": {"type": "json", "value": "{"}}},
        422,
    ),
    "half a pair": (CHAT, chat("x", tools=TOOLS, tool_choice="nobody"), 422),
}


@pytest.fixture
def collected() -> Iterator[list[Any]]:
    """What the collector finds in a test; nothing is collected before its end, and what stands
    before it is not looked through."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@beside_only
@pytest.mark.parametrize("row", REQUESTS)
async def test_nothing_is_left_to_the_collector(serve: Any, row: str, collected: list[Any]) -> None:
    path, body, status = REQUESTS[row]
    client = await serve(FakeEngine(), payload_limit=2_000_000)
    seen, answer = await client.post(path, body)  # what is made once
    assert seen == status, answer
    gc.collect()
    await client.post(path, body)
    assert left_of(collected) == []


@beside_only
@pytest.mark.parametrize("line", [b"X-A: " + b"a" * 1_000_000, b"X-A: a\r\n" * 20_000, b"\1"])
async def test_nor_of_a_malformed_head(serve: Any, line: bytes, collected: list[Any]) -> None:
    client = await serve(FakeEngine())
    port = int(client.url.rpartition(":")[2])
    for _ in range(2):
        gc.collect()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert left_of(collected) == []


def left_of(collected: list[Any]) -> list[Any]:
    """Errors and what they came through, that only the collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    kinds = (BaseException, FrameType, TracebackType)
    return [kept for kept in collected if isinstance(kept, kinds)]
