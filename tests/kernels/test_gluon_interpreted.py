"""The kernels in Gluon on the CPU, over odd shapes, against float32.

Not modelled: time, registers, layouts and swizzles, and the order of memory between programs, which
run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from penstock_kernels.gpu import hopper_gated, hopper_linear, hopper_qkv
from penstock_kernels.gpu.hopper_linear import Stream, stream_for
from support.gluon_interpreter import Interpreted, Late
from support.paged import assert_near

HALF = [torch.bfloat16, torch.float16]
MULTIPROCESSORS = 3  # so few that programs take several turns
Interpret = Callable[..., None]


@pytest.fixture(params=[False, True], ids=["consumers-first", "loader-first"])
def interpret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Interpret:
    """Has a module's kernel interpreted; late: tensors that the launch before it writes."""
    torch.manual_seed(0)
    kernels: dict[ModuleType, object] = {}

    def replace(module: ModuleType, *late: Late) -> None:
        kernel = kernels.setdefault(module, module._kernel)
        monkeypatch.setattr(module, "_kernel", Interpreted(kernel, request.param, late))
        if hasattr(module, "multiprocessors"):
            monkeypatch.setattr(module, "multiprocessors", lambda device: MULTIPROCESSORS)

    return replace


def product(rows: int, n: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x: [rows, k]; weight: [n, k]."""
    return torch.randn(rows, k).to(dtype), (torch.randn(n, k) * k**-0.5).to(dtype)


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "k", "stream"),
    [
        (2, 64, 128, Stream(1, 1, 1)),  # one tile
        (7, 320, 384, Stream(1, 2, 1)),  # turns of two lengths, a ring that wraps
        (9, 192, 640, Stream(2, 3, 1)),  # splits of unequal depth
        (33, 128, 640, Stream(5, 1, 2)),
        (64, 256, 256, Stream(1, 2, 1)),
    ],
)
def test_linear(
    rows: int, n: int, k: int, stream: Stream, dependent: bool, interpret: Interpret
) -> None:
    x, weight = product(rows, n, k, HALF[rows % 2])
    interpret(hopper_linear, *([Late(x)] if dependent else []))
    out = torch.full((stream.splits, rows, n), torch.nan)
    if stream.splits == 1:
        out = out[0].to(x.dtype)
    hopper_linear.hopper_linear(x, weight, out, stream, False, dependent)
    assert_near(out if stream.splits == 1 else out.sum(0), x.float() @ weight.float().T)
