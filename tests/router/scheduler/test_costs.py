"""Sizes of steps from what they take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock_proto.shard_pb2 import InfoResponse, WarmupResponse
from penstock_router.limits import _costs
from penstock_router.scheduler.costs import USUAL, step_rows
from support.scheduling import Loop, running

# ms by rows, as shards measured them at start on an H200.
ROWS = (128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 3072, 4096)
LLAMA_8B_INT4 = (
    5.32, 7.55, 10.89, 11.83, 16.43, 18.67, 19.47, 21.19, 26.54, 27.39, 31.26, 37.58, 40.55, 57.28,
    78.51,
)  # fmt: skip
GPT_OSS_20B = (
    10.34, 12.55, 12.76, 16.79, 21.25, 17.75, 18.51, 22.62, 29.47, 28.39, 28.81, 29.68, 35.74,
    50.32, 62.42,
)  # fmt: skip


def measured(milliseconds: tuple[float, ...]) -> dict[int, float]:
    return {rows: ms / 1e3 for rows, ms in zip(ROWS, milliseconds, strict=True)}


def test_sizes_that_no_mixture_of_others_beats() -> None:
    assert step_rows(measured(LLAMA_8B_INT4)) == (512, 1024, 2048)
    assert step_rows(measured(GPT_OSS_20B)) == (384, 1792)


def test_without_a_measurement_there_are_sizes_too() -> None:
    assert step_rows({}) == USUAL


@pytest.mark.parametrize("noise", [0.99, 1.01])
def test_a_little_noise_moves_neither_the_first_size_nor_lets_dear_ones_in(noise: float) -> None:
    costs = measured(LLAMA_8B_INT4)
    for rows in costs:
        first, *others = step_rows(costs | {rows: costs[rows] * noise})
        assert first == 512 and not {640, 768, 1152} & set(others)


def test_times_that_fall_with_more_rows_count_as_the_larger() -> None:
    assert step_rows({128: 1.0, 256: 1.5, 384: 3.0, 512: 1.2}) == (256, 512)


def test_where_all_sizes_are_as_good_the_first_is_a_little_longer_than_the_fewest_rows() -> None:
    """Without a GPU's tiles: twice the rows take twice as long."""
    sizes = (128, 256, 512, 1024)
    assert step_rows({rows: rows * 1e-5 for rows in sizes}) == (256, 512, 1024)
    assert step_rows({100: 0.2}) == (100,)


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
        (None, (256,)), ((0,), (256,)), ((300, 100), (100, 300)),
    ):  # fmt: skip
        config: Any = SimpleNamespace(max_total_tokens=None, max_input_tokens=None, step_rows=given)
        assert derive(config, [info], request, [warmup]).step_rows == expected
