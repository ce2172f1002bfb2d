"""Decode steps as CUDA graphs give the tokens of steps that were launched one kernel at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.local_shard import LocalShard, load_model
from support.shard_driver import neutral

pytestmark = pytest.mark.gpu

PROMPTS = [np.random.default_rng(i).integers(3, 301, 5 + 9 * i).tolist() for i in range(6)]


def answers(shard: LocalShard, rows: int, sampled: bool) -> list[list[int]]:
    """Prompts in one step each, then decode steps of all; one leaves in the middle."""
    wanted = [
        neutral(temperature=1.0, seed=slot, presence_penalty=0.5) if sampled and slot % 2 else None
        for slot in range(rows)
    ]
    found = [[shard.start(slot, PROMPTS[slot], wanted[slot])] for slot in range(rows)]
    slots = list(range(rows))
    for count in (4, 5):
        for slot, more in zip(slots, shard.decode(slots, count, repeat=3), strict=True):
            found[slot] += more
        if len(slots) > 1:
            shard.run(release=[slots.pop(0)], decode_changed=True)
    shard.release(*slots)
    return found


@pytest.mark.parametrize("family", ["llama3", "mistral", "qwen3", "gpt_oss"])
@pytest.mark.parametrize("sampled", [False, True])
def test_graphs_change_nothing(
    checkpoint: Callable[[str], Path], family: str, sampled: bool
) -> None:
    """Batches below, at and beyond the sizes that were captured; float32, so token for token."""
    folder = checkpoint(family)
    plain = LocalShard(load_model(folder, device="cuda", cuda_graphs=(0,)), max_prefill_tokens=128)
    graphs = LocalShard(
        load_model(folder, device="cuda", cuda_graphs=(1, 4)), max_prefill_tokens=128
    )
    on_cpu = LocalShard(load_model(folder), max_prefill_tokens=128)
    for rows in (1, 3, 4, 6):
        expected = answers(plain, rows, sampled)
        assert answers(graphs, rows, sampled) == expected
        assert answers(on_cpu, rows, sampled) == expected
