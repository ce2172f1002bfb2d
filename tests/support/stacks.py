"""Weights of every layout and group that experts may have, by name.

weight_of("mxfp4", 64, 128, seed)          [64, 128], its numbers of a deviation of k ** -0.5
stack_of("mxfp4", 8, 64, 128)              eight of them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from penstock_kernels.fp8 import LARGEST, interleave
from penstock_kernels.lut import nearest, pack
from penstock_kernels.stacked import Stacked, stack
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.online import fp8, int8
from support.whole_numbers import rounded


def weight_of(kind: str, n: int, k: int, seed: int) -> Weight:
    dense = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * k**-0.5
    return KINDS[kind](dense)


def stack_of(kind: str, count: int, n: int, k: int, device: str = "cpu") -> Stacked:
    """As readers make it: on a CPU, then on its device."""
    return on(stack((weight_of(kind, n, k, seed) for seed in range(count)), count), device)


def on(stacked: Stacked, device: str, dtype: torch.dtype | None = None) -> Stacked:
    """dtype: of what is dense, and of biases."""
    parts, moved = stacked.parts, {}
    for name in ("data", "bias", "scale", "table", "outer", "zero", "order"):
        tensor = getattr(parts, name)
        if tensor is not None:
            half = name == "bias" or (name == "data" and parts.layout is Layout.DENSE)
            moved[name] = tensor.to(device, dtype if half and dtype is not None else tensor.dtype)
    return Stacked(
        Weight(
            **{"bias": None, **moved}, layout=parts.layout, scale_rows=parts.scale_rows,
            scale_columns=parts.scale_columns, code=parts.code, shape=parts.shape,
        )
    )  # fmt: skip


def with_bias(stacked: Stacked, bias: Tensor) -> Stacked:
    """bias: [count, n]."""
    return Stacked(replace(stacked.parts, bias=bias))


def _blocks(rows: int, columns: int) -> Callable[[Tensor], Weight]:
    def make(dense: Tensor) -> Weight:
        n, k = dense.shape
        tall, wide = -(-n // rows), -(-k // columns)
        whole = torch.zeros(tall * rows, wide * columns)
        whole[:n, :k] = dense
        parts = whole.view(tall, rows, wide, columns)
        scale = parts.abs().amax((1, 3)) / LARGEST + 1e-9
        data = (parts / scale[:, None, :, None]).view(whole.shape)[:n, :k]
        stored = interleave(data.contiguous().to(torch.float8_e4m3fn))
        return Weight(stored, None, Layout.FP8_BLOCKS, scale, rows, columns)

    return make


def _codes(code: str, group: int, scales: torch.dtype, outer: bool = False) -> Callable:
    def make(dense: Tensor) -> Weight:
        n, k = dense.shape
        parts = dense.reshape(n, k // group, group)
        scale = parts.abs().amax(2) / (6.0 if code == "e2m1" else 1.0)
        beside = torch.rand(n) + 0.5 if outer else None
        if code == "e2m1" and scales == torch.bfloat16:
            scale = scale.log2().ceil().exp2()  # as MXFP4 has them
        if beside is not None:
            scale /= beside[:, None]
        scale = scale.to(scales)
        wide = scale.float() if beside is None else scale.float() * beside[:, None]
        codes = nearest(parts / wide[..., None], code).view(n, k)
        return packed([Coded(codes, code, scale=scale, group=group, outer=beside)])

    return make


def _tables(dense: Tensor) -> Weight:
    """A table a row."""
    table = dense.quantile(torch.linspace(0.03, 0.97, 16), dim=1).T.contiguous()
    codes = (dense[..., None] - table[:, None]).abs().argmin(-1).to(torch.uint8)
    return Weight(pack(codes), layout=Layout.LUT, table=table)


def _alone(largest: Tensor) -> Tensor:
    return largest


def _rounded(bits: int, group: int | None, zeros: bool = False) -> Callable[[Tensor], Weight]:
    return lambda dense: rounded(Weight(dense), bits, group, zeros)


KINDS: dict[str, Callable[[Tensor], Weight]] = {
    "dense": Weight,
    "fp8": lambda dense: fp8(Weight(dense), _alone),
    "fp8 in blocks": _blocks(128, 128),
    "fp8 in small blocks": _blocks(32, 32),
    "fp8 in blocks of a row": _blocks(1, 32),
    "int8": lambda dense: int8(Weight(dense), _alone),
    "int8, groups": _rounded(8, 64, zeros=True),
    "int4": _rounded(4, 128),
    "int4 with zeros": _rounded(4, 128, zeros=True),
    "int4, groups of 64": _rounded(4, 64),
    "int4, groups of 32": _rounded(4, 32, zeros=True),
    "int4, a scale a row": _rounded(4, None),
    "nf4": _codes("nf4", 32, torch.float32),
    "nvfp4": _codes("e2m1", 16, torch.float8_e4m3fn, outer=True),
    "mxfp4": _codes("e2m1", 32, torch.bfloat16),
    "tables": _tables,
}
