"""Sums of rows over two GPUs through mapped memory: right, and the same bits on both ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
