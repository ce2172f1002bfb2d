"""Which decoder stands for all when kernels are compiled ahead, and when they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_shard.memory import plan
from penstock_shard.memory.measure import graph_sizes
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, load_model


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    return load_model(checkpoint("llama3"))


@pytest.mark.parametrize(
    ("windows", "kept"),
    [
        ((None,), (0,)),
        ((None, None, None), (0, 2)),
        ((None, 7, None, 7, None), (0, 1, 4)),
        ((7, 7, None), (0, 2)),
    ],
)
def test_the_first_layer_of_each_window_and_the_last_one(
    loaded: LoadedModel, windows: tuple[int | None, ...], kept: tuple[int, ...]
) -> None:
    decoder = loaded.decoder
    blocks = [with_window(decoder.blocks[0], window) for window in windows]
    short = dataclasses.replace(decoder, blocks=blocks).for_compiling()
    assert len(short.blocks) == len(kept)
    assert all(block is blocks[index] for block, index in zip(short.blocks, kept, strict=True))
    assert len(decoder.blocks) == 3  # left alone


def with_window(block: Any, window: int | None) -> Any:
    spec = dataclasses.replace(block.attention.spec, window=window)
    attention = dataclasses.replace(block.attention, spec=spec)
    return dataclasses.replace(block, attention=attention)


def test_tokens_that_no_kernel_wrote_are_not_looked_up(loaded: LoadedModel) -> None:
    tokens = torch.tensor([-1, 2**40])
    hidden = loaded.decoder.embedding.table.shape[1]
    found = loaded.decoder.for_compiling().embedding(tokens, tokens)
    assert torch.equal(found, torch.zeros(2, hidden))


@pytest.mark.parametrize(
    ("graphs", "world_size", "expected"),
    [(None, 1, [(1, 2, 4)]), ((0,), 1, []), ((2,), 1, [(2,)]), (None, 2, [])],
)
def test_kernels_of_graphs_are_compiled_where_no_other_rank_takes_part(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    graphs: tuple[int, ...] | None,
    world_size: int,
    expected: list[tuple[int, ...]],
) -> None:
    limits = LocalShard(loaded, max_slots=4).runner.limits
    found: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        plan, "compile_ahead", lambda model, limits, graphs: found.append(graphs.decode)
    )
    there = dataclasses.replace(
        loaded, device=torch.device("cuda"), cuda_graphs=graphs, group=Group(0, world_size)
    )
    plan._compile_ahead(there, limits, graph_sizes(there, limits))
    assert found == expected
