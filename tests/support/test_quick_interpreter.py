"""What is left out of Triton's interpreter, and that it is."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.runtime import interpreter

pytestmark = pytest.mark.skipif(not knobs.runtime.interpret, reason="with a GPU they are compiled")
LARGE = 2**31 - 1


@triton.jit
def _sums_kernel(x, out, count: tl.constexpr):
    at = tl.arange(0, count)
    row = tl.load(x + at)
    sums = row[:, None] + row[None, :]
    tl.store(out + at[:, None] * count + at[None, :], sums, mask=sums != 4)


def test_types_that_are_shared_are_told_apart() -> None:
    """By numbers and by shape: of one kernel after another."""
    for count in (2, 4):
        for dtype in (torch.int32, torch.float32, torch.float16):
            x = torch.arange(count).to(dtype)
            out = torch.full((count, count), -1, dtype=dtype)
            _sums_kernel[(1,)](x, out, count)
            expected = x[:, None] + x[None, :]
            assert torch.equal(out, expected.where(expected != 4, -1))


def test_overflows_are_not_looked_for_where_nobody_would_hear() -> None:
    options = interpreter.interpreter_builder.options
    assert not options.debug and not options.sanitize_overflow
    x, out = torch.tensor([LARGE, 1], dtype=torch.int32), torch.zeros(2, 2, dtype=torch.int32)
    _sums_kernel[(1,)](x, out, 2)
    assert out[0, 1] == -LARGE - 1
