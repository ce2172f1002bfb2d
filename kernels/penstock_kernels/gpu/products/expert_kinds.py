"""What kernels must know of experts' matrices when they are compiled, and the matrices as they take
them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.fp8 import GROUP, bits
from penstock_kernels.gpu.launch import card
from penstock_kernels.gpu.products.hopper_codes import lookup
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

LEAST = 16  # columns of a group that `within` takes


@dataclass(frozen=True, slots=True)
class Kind:
    """scales: none (there are none, or one a row, which is multiplied with in the end); depth (all
    columns of a tile have the same, which multiplies the tile's products); within (a tile has
    several whole groups, and numbers are multiplied one by one); each (groups of any size: each
    number finds its own)."""

    layout: str
    n: int
    k: int
    columns: int  # that are stored
    depth: int  # columns of a tile
    whole: bool  # whether tiles fill the matrix
    scales: str
    of_rows: bool  # whether each row has a scale
    group: int  # columns of a scale
    rows: int  # of a scale
    groups: int  # of a row
    scale: str  # e8m0, e4m3, or float
    words: bool  # whether scales of four rows are read as one number
    zeros: bool
    ordered: bool
    mixed: bool  # whether columns are reordered (`fp8.interleave`)
    biased: bool
    outer: bool
    code: str  # of a table that all rows have; e2m1 needs none
    tables: bool  # whether each row has one
    converts: bool  # whether the card has instructions for FP8
    packs: bool  # whether numbers are widened in pairs (`pairs`)
    lookup: str  # how they look codes up

    @staticmethod
    def of(weight: Stacked, dtype: torch.dtype, tile_rows: int, depth: int) -> Kind:
        """dtype: of the rows; tile_rows, depth: rows and columns of a tile."""
        parts, scale = weight.parts, weight.parts.scale
        of_rows = parts.layout is Layout.FP8
        of_rows |= parts.layout is Layout.INT8 and scale is not None and scale.shape[2] == 1
        group = -(-weight.columns // depth) * depth if of_rows else parts.scale_columns
        if of_rows and parts.zero is None:
            scale = None
        packs = card.multiplies_pairs(parts.device) and dtype.itemsize == 2
        mixed = parts.layout not in (Layout.DENSE, Layout.INT4) and weight.columns % GROUP == 0
        return Kind(
            layout=parts.layout.value, n=parts.n, k=parts.k, columns=weight.columns, depth=depth,
            whole=weight.columns % depth == 0 and parts.n % tile_rows == 0,
            scales="none" if scale is None else _scales(group, depth),
            of_rows=of_rows and scale is None, group=group, rows=parts.scale_rows,
            groups=_groups(parts.layout, scale), scale=_scale(scale),
            words=_scale(scale) == "e8m0" and parts.n % 8 == 0 and tile_rows % 8 == 0,
            zeros=parts.zero is not None, ordered=parts.order is not None, mixed=mixed,
            biased=parts.bias is not None, outer=parts.outer is not None, code=parts.code,
            tables=weight.has_tables, converts=card.converts_fp8(parts.device), packs=packs,
            lookup=lookup(parts.code, dtype, apart=True) if packs and parts.code else "",
        )  # fmt: skip


def _scales(group: int, depth: int) -> str:
    if group % depth == 0:
        return "depth"
    fits = group & (group - 1) == 0 and group >= LEAST and depth % group == 0
    return "within" if fits else "each"


def _groups(layout: Layout, scale: Tensor | None) -> int:
    """Of a row."""
    if scale is None:
        return 0
    return scale.shape[1 if layout is Layout.LUT else 2]


def _scale(scale: Tensor | None) -> str:
    if scale is None:
        return "float"
    return {torch.uint8: "e8m0", torch.float8_e4m3fn: "e4m3"}.get(scale.dtype, "float")


def operands(weight: Stacked, kind: Kind) -> tuple[Tensor | int, ...]:
    """Data, scale, zero, table, outer, order and bias as kernels take them, with how far those of
    one expert are from the next one's. What there is none of is not read: data stands for it."""
    parts, scale = weight.parts, weight.parts.scale
    if kind.words and scale is not None:
        scale = scale.view(torch.int32)
    found: list[Tensor | int] = []
    for tensor in (
        parts.data, scale, parts.zero, parts.table, parts.outer, parts.order, parts.bias,
    ):  # fmt: skip
        shared = tensor is not None and tensor is parts.table and not weight.has_tables
        tensor = parts.data if tensor is None else tensor
        tensor = bits(tensor) if tensor.dtype == torch.float8_e4m3fn else tensor
        found += [tensor, 0 if shared else tensor.stride(0)]
    return tuple(found)
