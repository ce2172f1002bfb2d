"""How many system calls a stream takes: the transport is ours and keeps every write."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock_router.api import make_app, make_runner
from penstock_router.metrics import Metrics
from penstock_router.text import TextModel
from router.api.conftest import CONFIG
from support.fake_engine import FakeEngine


class Recorder(asyncio.Transport):
    """A socket with room for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_is_a_write_a_token(text: TextModel, version: bytes) -> None:
    """The head travels with the first token, usage and the end of the body with the last one."""
    engine = FakeEngine(script=[10, 11, 12, 2])
    metrics = Metrics(engine.limits.max_input_tokens, engine.limits.max_total_tokens)
    runner = make_runner(make_app(CONFIG, engine, text, metrics))
    await runner.setup()
    assert runner.server is not None
    connection, transport = runner.server(), Recorder()
    connection.connection_made(transport)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({"prompt": [5, 6, 7], **options}).encode()
    connection.data_received(
        b"POST /v1/completions HTTP/%b\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (version, len(body), body)
    )
    async with asyncio.timeout(60):
        while not transport.writes or b"[DONE]" not in transport.writes[-1]:
            await asyncio.sleep(0.001)
    first, *_, last = transport.writes
    assert first.startswith(b"HTTP/%b 200 OK\r\n" % version)
    assert first.count(b"data: ") == 1
    assert b'"usage":{' in last and b"[DONE]" in last
    assert last.endswith(b"\r\n0\r\n\r\n" if version == b"1.1" else b"[DONE]\n\n")
    assert len(transport.writes) == 4  # as many as tokens
    await runner.cleanup()
