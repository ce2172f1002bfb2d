"""The router starts beside the shards, and waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock_router.shard_client import ShardGroup
from support.fake_shard import fake_shard


async def test_shards_that_load_are_waited_for(tmp_path: Path) -> None:
    """They have no socket until then; however long it takes, they are found within a second."""
    socket = tmp_path / "shard-0.sock"
    shards = ShardGroup([str(socket)])
    asked = asyncio.ensure_future(shards.info())
    await asyncio.sleep(4)  # gRPC's own pauses between two tries grow beyond this
    assert not asked.done()
    async with fake_shard(socket):
        (info,) = await asyncio.wait_for(asked, 2)
    assert info.rank == 0
    await shards.close()
