"""Which sums go through mapped memory; that they add is shown on two GPUs (parity of two ranks)."""

from __future__ import annotations

import pytest
import torch

from penstock_shard.symmetric import LARGEST, SymmetricSums


@pytest.mark.parametrize(
    ("rows", "dtype", "taken"),
    [
        (1, torch.bfloat16, True),
        (64, torch.bfloat16, True),
        (65, torch.bfloat16, False),
        (32, torch.float32, True),
        (33, torch.float32, False),
        (1, torch.float16, False),  # torch's kernel knows no float16: such a model would not start
        (0, torch.bfloat16, False),
    ],
)
def test_small_sums_of_the_dtypes_that_can_be_added(
    rows: int, dtype: torch.dtype, taken: bool
) -> None:
    sums = object.__new__(SymmetricSums)  # no memory is mapped where there is no GPU
    assert LARGEST == 64 * 4096 * 2
    assert sums.takes(torch.empty(rows, 4096, dtype=dtype)) is taken
    assert not sums.takes(torch.empty(8, 64, dtype=torch.float32)[:, :32])
    assert not sums.takes(torch.empty(1, 6, dtype=torch.bfloat16))
