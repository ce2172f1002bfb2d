"""What several ranks allocate, all of them or none, and what one of them alone is short of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from penstock_proto import shard_pb2
from penstock_shard.memory import kv_cache, measure, memory, plan
from penstock_shard.memory.kv_cache import Shares
from penstock_shard.memory.memory import check_left
from penstock_shard.model.decoder import Decoder
from penstock_shard.ranks.agreement import NoMemory, check_room
from penstock_shard.ranks.parallel import Group, join_group
from support.joined_ranks import joined_ranks
from support.local_shard import LocalShard, load_model

CPU = torch.device("cpu")


class Two(Group):
    """Of two ranks, the other of which has a value of its own."""

    other = 1

    def minimum(self, value: int, device: torch.device) -> int:
        return min(value, self.other)


def blocks(shard: LocalShard) -> tuple[int, bool]:
    """Of the cache, and whether every rank has as many."""
    group, count = shard.runner.group, shard.runner.limits.num_blocks
    return count, group.minimum(count, CPU) == -group.minimum(-count, CPU)


def test_the_cache_is_as_large_as_the_shortest_rank_can_have_it(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that memory decides are the least of all ranks."""
    share = {0: 900_000, 1: 300_000}
    real = memory.count_blocks

    def count(loaded: Any, request: Any, free: int) -> Any:
        request.max_batch_total_tokens = 0
        monkeypatch.setattr(kv_cache, "CPU_SHARE", 1.0)
        shares = Shares(kv_cache=share[loaded.group.rank])
        return real(dataclasses.replace(loaded, shares=shares), request, free)

    monkeypatch.setattr(plan, "count_blocks", count)
    block = 8 * 3 * 2 * 2 * 16 * 4  # tokens, layers, K and V, heads of a rank, width, bytes
    found = joined_ranks(checkpoint("llama2"), 2, blocks)
    assert found == (300_000 // block, True)


def test_ranks_take_a_smaller_cache_together(
    checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of them finds that what was agreed on does not fit."""
    real = kv_cache.allocate

    def allocate(decoder: Decoder, num_blocks: int, *more: Any) -> torch.Tensor:
        if decoder.head.group.rank == 1 and num_blocks > 100:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return real(decoder, num_blocks, *more)

    def count(loaded: Any, request: Any, free: int) -> tuple[int, None]:
        request.max_batch_total_tokens = 0
        return 129, None

    monkeypatch.setattr(kv_cache, "allocate", allocate)
    monkeypatch.setattr(plan, "count_blocks", count)
    assert joined_ranks(checkpoint("llama2"), 2, blocks) == (96, True)
    said = capsys.readouterr().err
    assert "trying 96 of 129 blocks" in said and "another rank has too little memory" in said


def test_a_rank_that_has_no_room_keeps_the_others_from_going_on() -> None:
    group = Two(0, 2)
    check_room(group, CPU, 1000)
    with pytest.raises(NoMemory, match="allocate"):
        check_room(group, CPU, 1 << 60)
    group = Two(0, 2)
    Two.other = 0
    try:
        with pytest.raises(NoMemory, match="another rank has too little"):
            check_room(group, CPU, 1000)
    finally:
        Two.other = 1


@pytest.mark.parametrize(("blocks", "tokens"), [(1000, 512), (20, 128), (2, 64)])
def test_ranks_take_smaller_steps_together(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, blocks: int, tokens: int
) -> None:
    """Where the cache of another rank has no room for a step, whatever this one has."""
    ran = measure.Ran(0.1, finite=True)
    measured = measure.Measured(ran, ran, 1, 1, 1, 1 << 40, beside_steps=True)
    monkeypatch.setattr(plan, "measure", lambda *_: measured)
    monkeypatch.setattr(Two, "other", blocks)
    alone = load_model(checkpoint("llama2"))
    asked = shard_pb2.WarmupRequest(
        max_prefill_tokens=512, max_slots=64, max_sequence_length=64, max_top_n=5
    )
    found = plan.plan_what_fits(dataclasses.replace(alone, group=Two(0, 2)), asked)
    assert found.request.max_prefill_tokens == tokens
    assert found.blocks == min(blocks, 64 * 8 + 1)


def test_a_rank_that_has_memory_does_not_say_how_to_get_more(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options are not what keeps the other one small."""
    ran = measure.Ran(0.1, finite=True)
    measured = measure.Measured(ran, ran, 1, 1, 1, 1 << 40, beside_steps=False)
    monkeypatch.setattr(plan, "measure", lambda *_: measured)
    loaded = dataclasses.replace(load_model(checkpoint("llama2")), group=Two(0, 2))
    asked = shard_pb2.WarmupRequest(
        max_prefill_tokens=1, max_slots=1, max_sequence_length=64, max_batch_total_tokens=64
    )
    with pytest.raises(plan.DoesNotFit, match="another rank has too little memory for its part"):
        plan.plan_what_fits(loaded, asked)


def test_all_ranks_know_that_draws_do_not_fit(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only rank 0 draws; the others would wait for it in the next step."""

    def rehearse(runner: Any, loaded: Any) -> bool:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    ran = measure.Ran(0.1, finite=True)
    monkeypatch.setattr(measure, "_prefill", lambda *_: ran)
    monkeypatch.setattr(measure, "_decode", lambda *_: ran)
    monkeypatch.setattr(measure, "_rehearse", rehearse)
    loaded = dataclasses.replace(load_model(checkpoint("llama2")), group=Two(0, 2))
    asked = shard_pb2.WarmupRequest(max_prefill_tokens=8, max_slots=2, max_sequence_length=64)
    with pytest.raises(plan.DoesNotFit, match="sampling for 2 sequences, does not fit"):
        plan.plan_what_fits(loaded, asked)


def test_what_is_really_free_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once graphs and cache are there; what others took meanwhile, too."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400 << 20, 1000 << 20))
    cuda, shares = torch.device("cuda"), Shares(leave_free=100 << 20)
    check_left(Group(), cuda, shares, 300 << 20)
    with pytest.raises(NoMemory, match="300 MiB are left, and a step takes 301"):
        check_left(Group(), cuda, shares, 301 << 20)
    check_left(Group(), CPU, shares, 1 << 60)


def test_ranks_of_one_host_meet_on_its_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """S5: neither gloo nor NCCL listens on a network."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda **given: asked.update(given))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "eth0")
    join_group({"RANK": "1", "WORLD_SIZE": "2"}, tmp_path, CPU)
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "lo"
    assert asked["init_method"] == f"file://{tmp_path}/rendezvous"
