"""The router starts beside the shards, and waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock_proto.shard_pb2 import WarmupRequest, WarmupResponse
from penstock_router import shard_client
from penstock_router.shard_client import ShardFailure, ShardGroup
from support.fake_shard import FakeShard, FakeShardConfig, fake_shard


async def test_shards_that_load_are_waited_for(tmp_path: Path) -> None:
    """They have no socket until then; however long it takes, they are found within a second."""
    socket = tmp_path / "shard-0.sock"
    shards = ShardGroup([str(socket)])
    asked = asyncio.ensure_future(shards.info())
    await asyncio.sleep(4)  # gRPC's own pauses between two tries grow beyond this
    assert not asked.done()
    async with fake_shard(socket):
        (info,) = await asyncio.wait_for(asked, 60)
    assert info.rank == 0
    await shards.close()


ASKED = WarmupRequest(max_prefill_tokens=8, max_slots=2, max_batch_total_tokens=10**6)


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ShardGroup]:
    """Two shards: the first never ends its warm-up, and the second cannot do it."""
    warm_up = FakeShard.Warmup

    async def hang(self: FakeShard, request: WarmupRequest, context: Any) -> WarmupResponse:
        if self.config.rank == 0:
            await asyncio.sleep(60)
        return await warm_up(self, request, context)

    monkeypatch.setattr(FakeShard, "Warmup", hang)
    sockets = [tmp_path / f"{rank}.sock" for rank in range(2)]
    second = FakeShardConfig(rank=1, world_size=2)
    async with fake_shard(sockets[0]), fake_shard(sockets[1], second):
        group = ShardGroup([str(socket) for socket in sockets])
        yield group
        await group.close(timeout=0.1)


async def test_a_warm_up_has_an_end(two: ShardGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_client, "WARM_UP_SECONDS", 0.2)
    with pytest.raises(ShardFailure, match="shard 0: Warmup failed: no answer in time"):
        await asyncio.wait_for(two.warmup(WarmupRequest()), 60)


async def test_a_warm_up_that_fails_is_not_waited_out(two: ShardGroup) -> None:
    """What the others do meanwhile waits for the one that failed."""
    with pytest.raises(ShardFailure, match="shard 1: Warmup failed: max_batch_total"):
        await asyncio.wait_for(two.warmup(ASKED), 60)


async def test_close_leaves_no_task(two: ShardGroup) -> None:
    before = asyncio.all_tasks()
    two.start()
    await two.close(timeout=0.1)
    assert not [task for task in asyncio.all_tasks() - before if "_probe" in repr(task)]
