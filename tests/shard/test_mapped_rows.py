"""Sums of rows over two GPUs through mapped memory: right, and the same bits on both ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support.shard_driver import neutral, running_shards
from support.two_ranks import check_replays, check_sums, on_two_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


def test_sum_residual_and_norm_against_float32(tmp_path: Path) -> None:
    first, second = on_two_gpus(check_sums, tmp_path)
    assert first["difference"] < 1e-5 and second["difference"] < 1e-5
    assert first["outputs"] == second["outputs"]


def test_a_thousand_steps_under_load(tmp_path: Path) -> None:
    """Whoever reads too early finds the rows of an earlier step; whoever empties too late loses
    some."""
    first, second = on_two_gpus(check_replays, tmp_path)
    assert first["differing"] == second["differing"] == 0
    assert first["sums"] == second["sums"] and len(set(first["sums"])) == 1000
    assert max(first["worst"], second["worst"]) < 0.02  # of a row, to the older sums: rounding


def test_two_gpus_give_the_tokens_of_one_cpu(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Most likely tokens, which each rank finds by itself, and sampled ones, which rank 0 tells."""
    prompts = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
    sampled = [neutral(), neutral(temperature=1.0, seed=3, top_k=20), neutral()]
    model = checkpoint("llama3")
    with (
        running_shards(model, tmp_path / "one") as one,
        running_shards(model, tmp_path / "two", world_size=2, device="cuda") as two,
    ):
        one.warm_up()
        two.warm_up()
        for sampling in (None, sampled, None):
            assert two.generate(prompts, 20, sampling) == one.generate(prompts, 20, sampling)
        assert two.close() == [0, 0]
        for log in two.logs:
            assert "mapped memory" not in log.read_text()  # it would say why not
