"""Two thousand streams at a time through one router: a real process, before a shard that checks
every command and whose tokens are known."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from benchmarks.router.overhead import router_configuration, start
from benchmarks.server import end
from tokenizers import Tokenizer

from support.fake_model import FakeModelConfig, expected_tokens
from support.small_text import byte_level, write_folder

STREAMS, TOKENS = 2000, 60
MODEL = FakeModelConfig(vocab_size=700, num_blocks=20_000, max_position_embeddings=8192)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a router that seats all of them at once."""
    model = write_folder(tmp_path / "model", byte_level())
    path = tmp_path / "s.sock"
    shard, _ = start(
        ["support.fake_shard", "--socket", str(path), "--vocab-size", str(MODEL.vocab_size),
         "--num-blocks", str(MODEL.num_blocks), "--step-seconds", "0.05"],
        tmp_path / "shard.log",
    )  # fmt: skip
    router = None
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=STREAMS) as listener:
            wanted = json.loads(router_configuration(model, path, listener.fileno()))
            wanted |= {"max_concurrent_requests": STREAMS, "max_batch_size": STREAMS}
            wanted |= {"step_timeout": 240.0}
            router, said = start(
                ["penstock_router"], tmp_path / "router.log", json.dumps(wanted),
                [listener.fileno()],
            )  # fmt: skip
        yield said["url"]
    finally:
        for process in (router, shard):
            if process is not None:
                end(process)


async def stream(session: aiohttp.ClientSession, number: int) -> list[int]:
    """Its tokens."""
    parameters = {"max_new_tokens": TOKENS, "ignore_eos": True}
    body = {"inputs": f"stream {number}", "parameters": parameters}
    tokens: list[int] = []
    async with session.post("/generate_stream", json=body) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                tokens.append(event["token"]["id"])
        assert event["generated_text"] is not None
    return tokens


@pytest.mark.full
async def test_none_of_two_thousand_is_lost(url: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * STREAMS:
        pytest.skip(f"only {hard} descriptors (`ulimit -n`)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * STREAMS), hard))
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    timeout = aiohttp.ClientTimeout(total=280)
    connector = aiohttp.TCPConnector(limit=0)
    began = time.monotonic()
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as session:
        streams = [asyncio.create_task(stream(session, n)) for n in range(STREAMS)]
        most = 0
        while not all(task.done() for task in streams):
            async with session.get("/metrics") as reply:
                page = await reply.text()
            line = next(x for x in page.splitlines() if x.startswith("penstock_running_sequences "))
            most = max(most, int(line.split()[1]))
            await asyncio.sleep(0.3)
        for number, task in enumerate(streams):
            prompt = tokenizer.encode(f"stream {number}").ids
            assert task.result() == expected_tokens(prompt, TOKENS, MODEL), number
    seconds = time.monotonic() - began
    print(f"\n{STREAMS} streams of {TOKENS} tokens in {seconds:.1f} s; {most} ran at a time")
    assert most > STREAMS / 2
