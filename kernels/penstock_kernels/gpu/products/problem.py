"""What decides which kernel computes a product: nothing that differs from replay to replay."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from penstock_kernels.weight import Layout, Weight

MANY = 1 << 31  # beyond all rows of a step


class Epilogue(enum.Enum):
    """What becomes of the sums of a product before they leave the kernel."""

    NONE = "none"  # x W^T + b
    GATED = "gated"  # silu(gate) * up of it
    PARTIAL = "partial"  # sums over parts of k, in float32, for a norm that adds them up
    RESIDUAL = "residual"  # added to the residual, in place
    ROTATE = "rotate"  # queries and keys are rotated, keys and values stored


@dataclass(frozen=True, slots=True)
class Problem:
    """A product of [rows, k] with a weight [n, k]."""

    rows: int
    n: int
    k: int
    dtype: torch.dtype  # of the rows
    layout: Layout
    biased: bool
    dense: bool  # the rows stand one behind the other
    device: torch.device
    scale_columns: int = 1  # of a block of the weight's scales
    code: str = ""  # of a table that kernels know (`kernels.lut.TABLES`)
    scales_in_fp8: bool = False
    outer: bool = False  # codes have scales of rows beside those of blocks
    grouped: bool = False  # whole numbers of 8 bits whose scales are of groups
    wide_scales: bool = False  # in float32
    zeros: bool = False  # what stands for 0 differs from group to group
    ordered: bool = False  # inputs are taken in another order
    width: int = 0  # of a head, where queries, keys and values are computed
    raw: bool = False  # rows have their norm before them
    fp8_rows: bool = False  # see `Weight`

    @staticmethod
    def of(x: Tensor, weight: Weight, width: int = 0, raw: bool = False) -> Problem:
        return Problem(
            rows=len(x),
            n=weight.n,
            k=weight.k,
            dtype=x.dtype,
            layout=weight.layout,
            biased=weight.bias is not None,
            dense=x.is_contiguous(),
            device=x.device,
            scale_columns=weight.scale_columns,
            code=weight.code,
            scales_in_fp8=weight.scale is not None and weight.scale.dtype == torch.float8_e4m3fn,
            outer=weight.outer is not None,
            grouped=weight.layout is Layout.INT8 and not weight.has_row_scales,
            wide_scales=weight.scale is not None and weight.scale.dtype == torch.float32,
            zeros=weight.zero is not None,
            ordered=weight.order is not None,
            width=width,
            raw=raw,
            fp8_rows=weight.fp8_rows,
        )

    @property
    def half(self) -> bool:
        """In float32 results must not depend on the number of rows: cuBLAS computes all of it."""
        return self.dtype in (torch.bfloat16, torch.float16)


Config = Any  # of a launch: what its kernel wants to know


@dataclass(frozen=True, slots=True)
class Product:
    """A way to compute products of one layout with one epilogue.

    rows: where it is considered; config: the launch, None where this is not the way; launch:
    called with that, the rows (`Activation`), the weight, and what the epilogue needs; raw: whether
    it takes rows that have their norm, by root mean squares, before them, or others.
    """

    layout: Layout
    epilogue: Epilogue
    rows: range
    config: Callable[[Problem], Config | None]
    launch: Callable[..., Any]
    raw: bool = False


def gated(config: Callable[..., Config | None]) -> Callable[[Problem], Config | None]:
    """`Product.config` of a gated epilogue, by a function that takes that as an argument."""
    return partial(config, gated=True)
