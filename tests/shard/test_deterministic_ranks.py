"""`--deterministic` on several ranks that are processes and meet through gloo: the same bits alone
and in any company, in chunks of any size, behind a cached prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock_proto import shard_pb2
from support.schedules import Schedule, Token, Turn
from support.shard_driver import ShardSlots, neutral, running_shards

RANDOM = np.random.default_rng(11)
PROMPTS = [RANDOM.integers(3, 300, length).tolist() for length in (41, 1, 23, 60)]
REQUESTS = range(len(PROMPTS))
COMPANY = (
    [Turn(0, chunk=20), Turn(1), Turn(2), Turn(3, chunk=20)],
    [Turn(3, chunk=7), Turn(0, begin=2, chunk=3, cached=24), Turn(2, begin=4)],
    [Turn(1), Turn(3, begin=1, cached=56), Turn(0, begin=1, cached=8, chunk=1), Turn(2, chunk=5)],
)


def sampling(request: int) -> shard_pb2.Sampling:
    """Greedy, and drawn in three ways."""
    drawn = ({}, {"top_p": 0.8}, {"typical_p": 0.7}, {"repetition_penalty": 1.5})[request]
    more = {"temperature": 0.9, "seed": request, **drawn} if drawn else {}
    return neutral(logprobs=True, **more)


def outcomes(
    model: Path, sockets: Path, ranks: int, deterministic: bool, device: str = "cpu"
) -> list[dict[int, list[Token]]]:
    """Of every request alone, then of each company."""
    with running_shards(
        model, sockets, ranks, dtype="bfloat16", deterministic=deterministic, device=device
    ) as shards:
        shards.warm_up(max_slots=len(PROMPTS))
        schedule = Schedule(ShardSlots(shards, len(PROMPTS), 128), PROMPTS, sampling)
        alone = {request: schedule.run([Turn(request)])[request] for request in REQUESTS}
        return [alone, *(schedule.run(turns) for turns in COMPANY)]


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full)])
def test_company_chunks_and_cache_change_no_bit(
    checkpoint: Callable[[str], Path], tmp_path: Path, ranks: int
) -> None:
    alone, *together = outcomes(checkpoint("llama3"), tmp_path / "s", ranks, True)
    for found in together:
        assert found == {request: alone[request] for request in found}


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("family", ["llama3", "qwen2_moe"])
def test_nor_do_they_on_two_gpus(
    checkpoint: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """Over NCCL, in steps that are CUDA graphs."""
    alone, *together = outcomes(checkpoint(family), tmp_path / "s", 2, True, device="cuda")
    for found in together:
        assert found == {request: alone[request] for request in found}


@pytest.mark.full
def test_without_the_option_they_do(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """And what another number of ranks computes is another sum, though nearly the same."""
    alone, *together = outcomes(checkpoint("llama3"), tmp_path / "s", 4, False)
    assert any(tokens != alone[one] for found in together for one, tokens in found.items())
