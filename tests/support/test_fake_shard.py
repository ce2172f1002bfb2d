"""The fake shard speaks real gRPC over a real socket, and dies the deaths it is told to."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from penstock_proto import shard_pb2_grpc
from penstock_proto.shard_pb2 import (
    HealthRequest,
    InfoRequest,
    StepCommand,
    StepError,
    StepResult,
    WarmupRequest,
)
from support.fake_shard import (
    FakeModelConfig,
    FakeShardConfig,
    Fault,
    expected_tokens,
    fake_shard,
)
from support.test_fake_model import CONFIG, PROMPT, command, start

LIMITS = WarmupRequest(max_prefill_tokens=64, max_slots=4, max_sequence_length=64)


async def collect(socket: Path, *commands: StepCommand) -> list[StepResult]:
    """Sends the commands without waiting for results, as a router does."""

    async def requests() -> AsyncIterator[StepCommand]:
        for each in commands:
            yield each

    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = shard_pb2_grpc.ShardStub(channel)
        assert (await stub.Warmup(LIMITS)).num_blocks == CONFIG.num_blocks
        return [result async for result in stub.Run(requests())]


COMMANDS = (start(), command(2, decode_changed=True, decode=[0]), command(3))


async def test_a_run_over_the_socket(tmp_path: Path) -> None:
    socket = tmp_path / "shard-0.sock"
    async with fake_shard(socket, FakeShardConfig(model=CONFIG)) as shard:
        results = await collect(socket, *COMMANDS)
        await asyncio.wait_for(shard.ended.wait(), 60)
    assert [list(r.token) for r in results] == [[t] for t in expected_tokens(PROMPT, 3, CONFIG)]


async def test_other_ranks_return_no_tokens(tmp_path: Path) -> None:
    socket = tmp_path / "shard-1.sock"
    async with fake_shard(socket, FakeShardConfig(model=CONFIG, rank=1, world_size=2)):
        results = await collect(socket, *COMMANDS)
    assert [(r.step, list(r.token), r.device_ns) for r in results] == [
        (1, [], 1000),
        (2, [], 1000),
        (3, [], 1000),
    ]


@pytest.mark.parametrize("kind", ["internal", "out_of_memory"])
async def test_injected_error(tmp_path: Path, kind: str) -> None:
    socket = tmp_path / "shard-0.sock"
    config = FakeShardConfig(model=CONFIG, fault=Fault.parse(f"{kind}@2"))
    async with fake_shard(socket, config):
        first, second = await collect(socket, *COMMANDS)
    assert first.token and not first.HasField("error")
    assert second.error.kind == StepError.Kind.Value(kind.upper())
    assert second.error.message == f"injected {kind} at step 2"


async def test_injected_close_and_hang(tmp_path: Path) -> None:
    for kind in ("close", "hang"):
        socket = tmp_path / f"{kind}.sock"
        async with fake_shard(socket, FakeShardConfig(model=CONFIG, fault=Fault(kind, 2))):
            if kind == "close":
                assert len(await collect(socket, *COMMANDS)) == 1
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(collect(socket, *COMMANDS), 0.5)


async def test_too_much_memory_is_refused(tmp_path: Path) -> None:
    socket = tmp_path / "shard-0.sock"
    async with (
        fake_shard(socket, FakeShardConfig(model=CONFIG)),
        grpc.aio.insecure_channel(f"unix:{socket}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shard_pb2_grpc.ShardStub(channel).Warmup(
                WarmupRequest(max_batch_total_tokens=10_000)
            )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def process(socket: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "support.fake_shard", "--socket", str(socket), "--block-size", "4"),
        *("--num-blocks", "20", "--vocab-size", "100", *arguments),
        env=environment,
    )


@pytest.mark.parametrize(("fault", "code"), [((), 0), (("--fault", "exit@2"), 70)])
async def test_the_process_ends_with_its_stream(
    tmp_path: Path, fault: tuple[str, ...], code: int
) -> None:
    socket = tmp_path / "shard-0.sock"
    child = await process(socket, *fault)
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub = shard_pb2_grpc.ShardStub(channel)
            info = await stub.Info(InfoRequest(), wait_for_ready=True, timeout=30)
            await stub.Health(HealthRequest())
        assert (info.vocab_size, info.block_size, info.world_size) == (100, 4, 1)
        if code:
            with pytest.raises(grpc.aio.AioRpcError):
                await collect(socket, *COMMANDS)
        else:
            assert len(await collect(socket, *COMMANDS)) == 3
        assert await asyncio.wait_for(child.wait(), 30) == code
    finally:
        if child.returncode is None:
            child.kill()


@pytest.mark.parametrize("text", ["boom@1", "hang", "hang@x"])
def test_unknown_faults_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        Fault.parse(text)


def test_eos_every_needs_a_token() -> None:
    with pytest.raises(ValueError, match="eos_token"):
        FakeModelConfig(eos_every=4)
