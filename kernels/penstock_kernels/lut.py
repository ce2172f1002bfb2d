"""Matrices of 4-bit codes, each of which stands for a number of a table of sixteen.

nf4 and fp4 are those of bitsandbytes (nf4: quantiles of a normal distribution, Dettmers et al.,
2023, arXiv:2305.14314), e2m1 that of the OCP microscaling formats and of NVFP4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_kernels.fp8 import in_order, interleave

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_FP4 = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)  # of 12

TABLES: dict[str, tuple[float, ...]] = {
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    "fp4": (*(value / 12 for value in _FP4), *(-value / 12 for value in _FP4)),
    "e2m1": (*_E2M1, *(-value for value in _E2M1)),
}  # fmt: skip


def table_of(code: str, device: torch.device) -> Tensor:
    """[1, 16] float32."""
    return torch.tensor([TABLES[code]], dtype=torch.float32, device=device)


def nearest(x: Tensor, code: str) -> Tensor:
    """The code of the number of a table that is nearest to each number of x, as uint8."""
    values, codes = torch.tensor(TABLES[code], device=x.device).sort()
    place = torch.bucketize(x, (values[1:] + values[:-1]) / 2)
    return codes.to(torch.uint8)[place]


def pack(codes: Tensor) -> Tensor:
    """Codes [n, k] uint8 as devices hold them: [n, k / 2], two a byte, the first one low, columns
    as `fp8.interleave` has them. k is even."""
    mixed = interleave(codes)
    return mixed[:, ::2] | mixed[:, 1::2] << 4


def unpack(data: Tensor) -> Tensor:
    """What `pack` was given."""
    return in_order(torch.stack((data & 15, data >> 4), dim=2).flatten(1))


def looked_up(codes: Tensor, table: Tensor) -> Tensor:
    """Numbers of codes [n, k]. table: [1, 16], or [n, 16] for a table a row, float32."""
    if len(table) == 1:
        return table[0][codes.long()]
    return table.gather(1, codes.long())
