"""Two shards over NCCL, under CUDA graphs: answers of one process, and faults that leave nothing.

python -m pytest -m gpu -n 6 tests/end_to_end/test_two_gpus.py
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import torch

from support import fp8_checkpoints, integer_checkpoints, lut_checkpoints
from support.checkpoints import make_checkpoint
from support.parity import TINY_POOL, mixed_run
from support.reference import ReferenceModel
from support.server import Server, gone, running_server

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

TWO = ("--device", "cuda", "--num-shard", "2")
FAMILIES = (
    *("llama3", "qwen2", "qwen3", "mistral", "gemma2", "phi3", "olmo2", "falcon_new", "gpt2"),
    *("gpt_neox", "mixtral", "qwen3_moe"),
)
FORMATS: dict[str, tuple[Callable[[Path, str, Path], None], str]] = {
    "fp8 tensor": (fp8_checkpoints.quantise_checkpoint, "tensor"),
    "fp8 block": (fp8_checkpoints.quantise_checkpoint, "block"),
    "gptq": (integer_checkpoints.quantise_checkpoint, "gptq"),
    "gptq act-order": (integer_checkpoints.quantise_checkpoint, "gptq-act-order"),
    "awq": (integer_checkpoints.quantise_checkpoint, "awq"),
    "nf4": (lut_checkpoints.quantise_checkpoint, "nf4"),
}


@pytest.mark.parametrize("family", FAMILIES)
async def test_families(tmp_path: Path, family: str) -> None:
    """Biases, windows and experts among them."""
    checkpoint = make_checkpoint(tmp_path / "model", family)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32")
    with running_server(tmp_path, *arguments, *TINY_POOL, *TWO) as server:
        await mixed_run(server, ReferenceModel(checkpoint), seed=len(family))


@pytest.mark.parametrize("name", FORMATS)
async def test_formats(tmp_path: Path, name: str) -> None:
    checkpoint, twin = make_checkpoint(tmp_path / "model", "llama3"), tmp_path / "twin"
    write, kind = FORMATS[name]
    write(checkpoint, kind, twin)
    arguments = ("--model-id", str(checkpoint), "--dtype", "float32")
    with running_server(tmp_path, *arguments, *TINY_POOL, *TWO) as server:
        await mixed_run(server, ReferenceModel(twin), seed=len(name))


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "people": {"type": "integer", "minimum": 0, "maximum": 99999999},
        "capital": {"type": "boolean"},
    },
    "required": ["city", "people", "capital"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


async def constrained(server: Server) -> list[str]:
    """The texts and calls of one chat each that is held to a schema, a regex and a tool."""
    chat = {"messages": [{"role": "user", "content": "Tell me of Paris."}], "temperature": 0}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    answer = {"type": "regex", "value": "(yes|no), [a-z]{3,9}"}
    bodies = [
        {**chat, "max_tokens": 200, "response_format": form},
        {**chat, "max_tokens": 40, "response_format": answer},
        {**chat, "max_tokens": 200, "tools": [TOOL], "tool_choice": "required"},
        {**chat, "max_tokens": 12},
    ]
    async with aiohttp.ClientSession(server.url) as session:

        async def ask(body: dict[str, Any]) -> str:
            async with session.post("/v1/chat/completions", json=body) as reply:
                answer = await reply.json()
                assert reply.status == 200, answer
            message = answer["choices"][0]["message"]
            calls = message.get("tool_calls") or []
            return "".join(call["function"]["arguments"] for call in calls) or message["content"]

        return await asyncio.gather(*(ask(body) for body in [*bodies, *bodies, *bodies]))


async def test_constrained_as_on_one(tmp_path: Path) -> None:
    """Schema, regex and tool in one batch, on the demo model."""
    found = []
    for shards in ("1", "2"):
        arguments = ("--dtype", "float32", "--device", "cuda", "--num-shard", shards)
        with running_server(tmp_path / shards, *arguments) as server:
            found.append(await constrained(server))
    assert found[0] == found[1]
    for at, text in enumerate(found[0]):
        if at % 4 in (0, 2):
            jsonschema.validate(json.loads(text), SCHEMA)


async def with_logprobs(server: Server, number: int) -> list[tuple[int, float]]:
    """The tokens of a request, greedy or drawn with a seed, and their log-probabilities."""
    drawn = {"do_sample": True, "seed": number, "temperature": 0.8} if number % 2 else {}
    text = "the same words " * 6 + f"and {number % 3} others"
    body = {"inputs": text, "parameters": {"max_new_tokens": 12, "details": True, **drawn}}
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/generate", json=body) as reply,
    ):
        answer = await reply.json()
    assert reply.status == 200, answer
    return [(token["id"], token["logprob"]) for token in answer["details"]["tokens"]]


async def test_deterministic(tmp_path: Path) -> None:
    """Alone, from the prefix cache and in company: the same bits."""
    model = make_checkpoint(tmp_path / "model", "llama3")
    arguments = ("--model-id", str(model), "--dtype", "bfloat16", "--deterministic")
    with running_server(tmp_path, *arguments, *TWO) as server:
        alone = [await with_logprobs(server, number) for number in range(8)]
        cached = [await with_logprobs(server, number) for number in range(8)]
        company = (with_logprobs(server, number) for number in [*range(8)] * 4)
        together = await asyncio.gather(*company)
    assert cached == alone and together == alone * 4


def memory() -> list[int]:
    """MiB in use of each GPU."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [int(line) for line in subprocess.check_output(query, text=True).split()]


def decoding(number: int) -> dict[str, Any]:
    return {"inputs": f"Tell me story {number}.", "parameters": LONG}


def prefilling(number: int) -> dict[str, Any]:
    return {"inputs": f"word {number} " * 500, "parameters": {"max_new_tokens": 1}}


LONG = {"max_new_tokens": 1800, "ignore_eos": True}
CLIENTS = 8


async def load(server: Server, body: Callable[[int], dict[str, Any]], began: asyncio.Event) -> int:
    """Clients that ask again and again, each for something else, until the server is gone. How
    often they asked."""
    count = itertools.count()

    async def client(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.post("/generate_stream", json=body(next(count))) as reply:
                assert reply.status == 200, await reply.text()
                async for _ in reply.content:
                    began.set()

    async with aiohttp.ClientSession(server.url) as session:
        async with asyncio.timeout(120):
            clients = (client(session) for _ in range(CLIENTS))
            ends = await asyncio.gather(*clients, return_exceptions=True)
    assert len(ends) == CLIENTS
    return next(count)


@pytest.mark.xdist_group("memory of the GPUs")
@pytest.mark.parametrize("phase", [decoding, prefilling])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_fault(
    tmp_path: Path, how: signal.Signals, victim: int, phase: Callable[[int], dict[str, Any]]
) -> None:
    """The group ends, its last line names the shard, and no process and no memory is left."""
    before = memory()
    with running_server(tmp_path, *TWO, "--step-timeout", "3") as server:
        processes, began = server.descendants(), asyncio.Event()
        task = asyncio.create_task(load(server, phase, began))
        await asyncio.wait_for(began.wait(), 60)
        assert memory() > before
        server.children("shard")[victim].send_signal(how)
        assert await asyncio.to_thread(server.process.wait, 120) != 0
        if how is signal.SIGKILL:
            assert f"shard {victim}" in server.last_line and "SIGKILL" in server.last_line
        else:  # the launcher saw that it was stopped, and the router waited for a step
            assert f"shard {victim} (process" in server.log and "is stopped" in server.log
            assert "no result of step" in server.last_line
        assert gone(processes, 60) and not server.left_behind()
        assert await task >= CLIENTS
        deadline = time.monotonic() + 30
        while any(now > was + 64 for now, was in zip(memory(), before, strict=True)):
            assert time.monotonic() < deadline, (before, memory())
            await asyncio.sleep(0.2)
