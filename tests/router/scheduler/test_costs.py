"""Sizes of steps from what they take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock_proto.shard_pb2 import InfoResponse, WarmupResponse
from penstock_router.limits import _costs
from penstock_router.scheduler.costs import MEASURED_BEFORE, step_rows
from support.scheduling import Loop, running

# Llama-3.1-8B on an H100, us a layer and row.
A_ROW = {
    128: 1.23, 256: 0.85, 384: 0.72, 512: 0.74, 768: 0.66, 1024: 0.70, 1152: 0.63, 1536: 0.66,
    2048: 0.63, 4096: 0.63,
}  # fmt: skip
H100 = {rows: rows * cost * 32e-6 for rows, cost in A_ROW.items()}


def test_sizes_of_which_a_row_costs_least() -> None:
    assert step_rows(H100) == (384, 1152)


def test_without_a_measurement_there_are_sizes_too() -> None:
    assert step_rows({}) == MEASURED_BEFORE


@pytest.mark.parametrize("noise", [0.99, 1.01])
def test_a_little_noise_changes_nothing(noise: float) -> None:
    for rows in H100:
        assert step_rows(H100 | {rows: H100[rows] * noise}) == step_rows(H100)


def test_times_that_fall_with_more_rows_count_as_the_larger() -> None:
    assert step_rows({128: 1.0, 256: 1.5, 384: 3.0, 512: 1.2}) == (256,)


def test_where_nothing_is_cheaper_together_there_is_one_size() -> None:
    """Without a GPU's tiles: twice the rows take twice as long."""
    assert step_rows({rows: rows * 1e-5 for rows in (128, 256, 512)}) == (256,)


def test_the_slowest_shard_counts() -> None:
    fast = WarmupResponse(cost_rows=[128, 256], cost_seconds=[1.0, 2.0])
    slow = WarmupResponse(cost_rows=[128, 256], cost_seconds=[1.5, 1.8])
    assert _costs([fast, slow]) == {128: 1.5, 256: 2.0}
    assert _costs([WarmupResponse()]) == {}


def test_steps_have_the_sizes() -> None:
    loop = Loop(
        num_blocks=60_000, block_size=16, max_batch_size=81, max_batch_prefill_tokens=4096,
        cheap_rows=200, step_rows=(200, 700),
    )  # fmt: skip
    running(loop, 10)
    loop.submit([5] * 5000, 1)
    loop.step()
    assert loop.plans[-1].prefill_tokens == 200 - 10
    loop.step()  # it is computed within five steps
    assert loop.plans[-1].prefill_tokens == 1024 - 10
    loop.drain()


def test_an_operators_sizes_come_before_those_measured() -> None:
    from penstock_router.limits import derive

    warmup = WarmupResponse(num_blocks=100, cost_rows=[128, 256], cost_seconds=[1.0, 1.5])
    info = InfoResponse(
        block_size=16, vocab_size=10, max_position_embeddings=512, device="cuda", device_name="",
        dtype="bfloat16", kv_cache_dtype="bfloat16",
    )  # fmt: skip
    request: Any = SimpleNamespace(max_sequence_length=512, max_prefill_tokens=512, max_slots=8)
    for given, expected in (
        (None, MEASURED_BEFORE), ((0,), (256,)), ((300, 100), (100, 300)),
    ):  # fmt: skip
        config: Any = SimpleNamespace(max_total_tokens=None, max_input_tokens=None, step_rows=given)
        assert derive(config, [info], request, [warmup]).step_rows == expected
