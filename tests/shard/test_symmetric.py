"""Which sums go through mapped memory, and the check that a start makes of them: it passes what is
right and tells the rest. That they add is shown on two GPUs (parity of two ranks).

Here all ranks' rows are known, so that one process can stand for any of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from penstock_kernels.ops import Norm
from penstock_kernels.reference.norm import add_norm
from penstock_shard.ranks.symmetric import (
    LARGEST,
    MappedRows,
    SymmetricSums,
    _agreed,
    fault_of,
    trial_rows,
)

WORLD = 2


class Sums:
    """What rank 1 of two gets, with a fault in the trial that is named."""

    def __init__(self, fault: str = "", trial: int = 0) -> None:
        self.fault, self.at, self.trial = fault, trial, -1

    def __call__(self, part: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        self.trial += 1
        start = self.trial
        if self.fault == "stale" and self.trial == self.at:
            start -= 3  # what the peer pushed three calls ago, when this turn was last taken
        total = trial_rows(start, part) + part
        if self.fault == "row" and self.trial == self.at:
            total[3, 7] += 1
        out = add_norm(total, residual, Norm(weight, eps))
        if self.fault == "norm":
            out[5] *= 1.05
        # As a GPU rounds: the last bit of float32 may be another.
        return out * (1 + torch.finfo(torch.float32).eps) if out.dtype == torch.float32 else out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_right_sums_pass(dtype: torch.dtype) -> None:
    sums = Sums()
    assert fault_of(sums, 1, WORLD, torch.zeros(16, 96, dtype=dtype)) is None
    assert sums.trial == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("fault", "trial", "told"),
    [
        ("row", 1, "trial 1: 1 of 16 rows are wrong, [3] first; sums differ by up to 1,"),
        ("stale", 3, "trial 3: 16 of 16 rows are wrong, [0, 1, 2, 3, 4, 5, 6, 7] first"),
        ("norm", 0, "trial 0: 1 of 16 rows are wrong, [5] first; sums differ by up to 0, norms"),
    ],
)
def test_faults_are_told_after_all_trials(
    dtype: torch.dtype, fault: str, trial: int, told: str
) -> None:
    """A rank that stopped at its first fault would leave the others waiting on their cards."""
    sums = Sums(fault, trial)
    found = fault_of(sums, 1, WORLD, torch.zeros(16, 96, dtype=dtype))
    assert found is not None and told in found
    assert sums.trial == 3


def test_trial_rows_hold_zeros_of_the_sign_that_marks_an_empty_inbox() -> None:
    rows = trial_rows(0, torch.zeros(2, 18))
    zeros = rows[rows == 0]
    assert len(zeros) == 4 and bool(torch.signbit(zeros).all())


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
    assert sums.supports(torch.empty(rows, 4096, dtype=dtype)) is taken
    assert not sums.supports(torch.empty(8, 64, dtype=torch.float32)[:, :32])
    assert not sums.supports(torch.empty(1, 6, dtype=torch.bfloat16))


def test_whatever_fails_on_a_rank_ends_in_the_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not compile is no RuntimeError; the other ranks wait for the vote."""

    class CompilationError(Exception):
        pass

    def step() -> MappedRows:
        raise CompilationError

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        assert _agreed(step, torch.device("cpu")) is None
    finally:
        dist.destroy_process_group()
