"""`--deterministic` on a CPU: a request has the same tokens and log-probabilities, bit for bit,
alone and in any company, in chunks of any size, behind a cached prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_kernels.reference.invariant_elements import PIECE, each
from penstock_kernels.reference.invariant_products import (
    SIZES,
    InvariantProducts,
    Shape,
    agreeing_sizes,
    block_size,
    multiplied,
)
from penstock_proto import shard_pb2
from support.local_shard import LocalShard, load_model
from support.schedules import Schedule, Turn
from support.shard_driver import neutral

RANDOM = np.random.default_rng(5)
PROMPTS = [RANDOM.integers(3, 300, length).tolist() for length in (41, 1, 23, 70)]
REQUESTS = range(len(PROMPTS))
TYPES = ("float32", "bfloat16")


def greedy(request: int) -> shard_pb2.Sampling:
    return neutral(logprobs=True)


def drawn(request: int) -> shard_pb2.Sampling:
    """Each in another way."""
    more = ({"top_p": 0.8}, {"typical_p": 0.7}, {"repetition_penalty": 1.5}, {"top_k": 9})[request]
    return neutral(temperature=0.9, seed=request, logprobs=True, **more)


@pytest.fixture(scope="module")
def schedules(
    checkpoint: Callable[[str], Path],
) -> Callable[..., Schedule]:
    """schedules(family, dtype, sampling): on a shard that is kept."""
    kept: dict[tuple[str, str, bool, str], LocalShard] = {}

    def make(
        family: str,
        dtype: str,
        sampling: Callable[[int], shard_pb2.Sampling],
        deterministic: bool = True,
        device: str = "cpu",
    ) -> Schedule:
        key = (family, dtype, deterministic, device)
        if key not in kept:
            loaded = load_model(
                checkpoint(family), dtype=dtype, deterministic=deterministic, device=device
            )
            kept[key] = LocalShard(loaded)
        return Schedule(kept[key], PROMPTS, sampling)

    return make


TOGETHER = (
    [Turn(0, chunk=20), Turn(1), Turn(2), Turn(3, chunk=20)],
    [Turn(3, chunk=7), Turn(0, begin=2, chunk=3, cached=24), Turn(2, begin=4)],
    [Turn(1), Turn(3, begin=1, cached=64), Turn(0, begin=1, cached=8, chunk=1)],
)


def differing(schedule: Schedule) -> int:
    """In how many of the schedules a request has other bits than alone."""
    alone = {request: schedule.run([Turn(request)])[request] for request in REQUESTS}
    found = [schedule.run(turns) for turns in TOGETHER]
    return sum(tokens != alone[one] for outcome in found for one, tokens in outcome.items())


@pytest.mark.parametrize("sampling", [greedy, drawn])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", ["llama3", "qwen2_moe", "gemma2", "gpt_oss"])
def test_company_chunks_and_cache_change_no_bit(
    schedules: Callable[..., Schedule],
    family: str,
    dtype: str,
    sampling: Callable[[int], shard_pb2.Sampling],
) -> None:
    """Families with experts beside a shared one, and with windows and soft caps, too."""
    assert differing(schedules(family, dtype, sampling)) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", [greedy, drawn])
@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama3", "bfloat16"),
        ("qwen2_moe", "bfloat16"),
        ("gemma2", "float32"),
        ("gpt_oss", "bfloat16"),
    ],
)
def test_nor_do_they_on_a_gpu(
    schedules: Callable[..., Schedule],
    family: str,
    dtype: str,
    sampling: Callable[[int], shard_pb2.Sampling],
) -> None:
    """In steps that are CUDA graphs."""
    assert differing(schedules(family, dtype, sampling, device="cuda")) == 0


@pytest.mark.parametrize("dtype", TYPES)
def test_without_the_option_they_do(schedules: Callable[..., Schedule], dtype: str) -> None:
    assert differing(schedules("llama3", dtype, greedy, deterministic=False)) > 0


TURNS = st.lists(
    st.builds(
        Turn,
        request=st.sampled_from(REQUESTS),
        begin=st.integers(0, 4),
        chunk=st.integers(1, 16),  # four of them are a step
    ),
    min_size=1,
    unique_by=lambda turn: turn.request,
)


@settings(max_examples=8)
@given(turns=TURNS)
def test_random_schedules(schedules: Callable[..., Schedule], turns: list[Turn]) -> None:
    schedule, first = schedules("llama3", "bfloat16", drawn), min(turn.begin for turn in turns)
    found = schedule.run([replace(turn, begin=turn.begin - first) for turn in turns])
    for request, tokens in found.items():
        assert tokens == schedule.run([Turn(request)])[request]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 33, 130, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_a_product_has_the_same_bits_among_others(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    products = InvariantProducts()
    for shape in ((301, 64), (48, 96)):
        x, matrix = torch.randn(rows, shape[1]).to(dtype), torch.randn(shape).to(dtype)
        bias = torch.randn(shape[0]).to(dtype)
        together = products(x, matrix, bias)
        torch.testing.assert_close(together, multiplied(x, matrix, bias), rtol=2e-2, atol=2e-2)
        for row in {0, rows // 2, rows - 1}:
            assert torch.equal(products(x[row : row + 1], matrix, bias)[0], together[row])


def summed(x: torch.Tensor, matrix: torch.Tensor, order: Iterable[int]) -> torch.Tensor:
    """x M^T, its terms added up in an order."""
    total = x.new_zeros(len(x), len(matrix))
    for k in order:
        total += x[:, k, None] * matrix[:, k]
    return total


def test_sizes_that_do_not_agree_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that takes another order for small blocks, and one whose order depends on a row's
    place in large ones."""

    def library(x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        found = summed(x, matrix, range(64))
        other = summed(x, matrix, range(63, -1, -1))
        return other if len(x) == 1 else torch.cat((found[:100], other[100:]))

    module = "penstock_kernels.reference.invariant_products.multiplied"
    monkeypatch.setattr(module, library)
    shape = Shape(None, 40, 64, torch.float32, True, False)
    assert agreeing_sizes(shape) == (64, 16, 4)
    products = InvariantProducts()
    x, matrix = torch.randn(150, 64), torch.randn(40, 64)
    for row in (50, 140):
        assert torch.equal(products(x[row : row + 1], matrix)[0], products(x, matrix)[row])


def test_blocks_are_half_full_at_least() -> None:
    assert [block_size(rows, SIZES) for rows in (1, 2, 3, 8, 9, 33, 128, 129, 900)] == [
        1, 1, 4, 4, 16, 64, 64, 256, 256,
    ]  # fmt: skip
    assert block_size(1, (64, 4)) == 4


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, torch.nn.functional.silu])
def test_an_element_has_the_same_bits_in_every_place(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.randn(3 * PIECE + 11)
    found = each(function, x)
    torch.testing.assert_close(found, function(x))
    for start in (1, 7, PIECE - 3, len(x) - 5):
        assert torch.equal(each(function, x[start : start + 5]), found[start : start + 5])
