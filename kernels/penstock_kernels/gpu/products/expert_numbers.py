"""Tiles of an expert's matrix, from what is stored to what tensor cores multiply, in registers.

A tile is [BN, depth]: rows of the matrix from `first` on, and of the stored columns those from
`start` on. Kernels are compiled for a `Kind`, which says what is stored.

Reference: `penstock_kernels.weight.Weight.dequantised`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP, bits
from penstock_kernels.gpu.attention.kv8 import widened
from penstock_kernels.gpu.launch import card
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.unpack_codes import unpacked
from penstock_kernels.int4 import COLUMNS as TILE_COLUMNS
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

LEAST = 16  # columns of a group that `within` takes


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kernel must know of experts' matrices when it is compiled.

    scales: none (there are none, or one a row, which is multiplied with in the end); depth (all
    columns of a tile have the same, which multiplies the tile's products); within (a tile has
    several, and numbers are multiplied one by one: groups stand side by side, or where
    `fp8.interleave` puts them); each (the same for groups of any size: each number finds its own).
    """

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
    zeros: bool
    ordered: bool
    mixed: bool  # whether columns are reordered (`fp8.interleave`)
    biased: bool
    outer: bool
    e2m1: bool  # whether codes are those of e2m1, which need no table
    tables: bool
    converts: bool  # whether the card has instructions for FP8
    packs: bool  # whether it has those of `unpack_codes`

    @staticmethod
    def of(weight: Stacked, tile_rows: int, depth: int) -> Kind:
        """tile_rows, depth: rows and columns of a tile; rows of a half where there is a gate."""
        parts, scale = weight.parts, weight.parts.scale
        columns = weight.columns
        of_rows = parts.layout is Layout.FP8
        of_rows |= parts.layout is Layout.INT8 and scale is not None and scale.shape[2] == 1
        group = -(-columns // depth) * depth if of_rows else parts.scale_columns
        if of_rows and parts.zero is None:
            scale = None
        is_mixed = reordered(weight)
        return Kind(
            layout=parts.layout.value, n=parts.n, k=parts.k, columns=columns, depth=depth,
            whole=columns % depth == 0 and tile_rows > 0 and parts.n % tile_rows == 0,
            scales="none" if scale is None else _scales(group, depth, is_mixed),
            of_rows=of_rows and scale is None, group=group, rows=parts.scale_rows,
            groups=_groups(parts.layout, scale), scale=_scale(scale),
            zeros=parts.zero is not None, ordered=parts.order is not None, mixed=is_mixed,
            biased=parts.bias is not None, outer=parts.outer is not None,
            e2m1=parts.code == "e2m1", tables=weight.has_tables,
            converts=card.converts_fp8(parts.device), packs=card.multiplies_pairs(parts.device),
        )  # fmt: skip


def reordered(weight: Stacked) -> bool:
    """Whether columns stand as `fp8.interleave` puts them."""
    return weight.layout not in (Layout.DENSE, Layout.INT4) and weight.columns % GROUP == 0


def _scales(group: int, depth: int, is_mixed: bool) -> str:
    if group % depth == 0:
        return "depth"
    together = max(group, 64) if is_mixed else group
    fits = group & (group - 1) == 0 and group >= LEAST and depth % together == 0
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


def operands(weight: Stacked) -> tuple[Tensor | int, ...]:
    """Data, scale, zero, table, outer, order and bias as kernels take them, with how far those of
    one expert are from the next one's. What there is none of is not read: data stands for it."""
    parts = weight.parts
    found: list[Tensor | int] = []
    for tensor in (
        parts.data, parts.scale, parts.zero, parts.table, parts.outer, parts.order, parts.bias,
    ):  # fmt: skip
        tensor = parts.data if tensor is None else tensor
        tensor = bits(tensor) if tensor.dtype == torch.float8_e4m3fn else tensor
        shared = tensor is parts.table and not weight.has_tables
        found += [tensor, 0 if shared else tensor.stride(0)]
    return tuple(found)


@triton.jit
def _by_bytes(data, line, start, STRIDE: tl.constexpr, COUNT: tl.constexpr, KIND: tl.constexpr):
    """COUNT elements of rows of STRIDE."""
    place = start + tl.arange(0, COUNT)
    pointers = data + line.to(tl.int64)[:, None] * STRIDE + place[None, :]
    if KIND.whole:
        return tl.load(pointers)
    wanted = (line < KIND.n)[:, None] & (place < STRIDE)[None, :]
    return tl.load(pointers, mask=wanted, other=0)


@triton.jit
def _by_codes(data, line, start, KIND: tl.constexpr):
    """Bytes of two codes of 4 bits."""
    return _by_bytes(data, line, start // 2, KIND.columns // 2, KIND.depth // 2, KIND)


@triton.jit
def _by_tiles(data, first, start, dtype: tl.constexpr, KIND: tl.constexpr):
    """Whole numbers of a tile of 64 rows and 128 columns: see `penstock_kernels.int4`."""
    tile = first // 64 * ((KIND.columns + 127) // 128) + start // 128
    byte = tl.load(data + tile.to(tl.int64) * 4096 + tl.arange(0, 4096))
    if KIND.packs and dtype != tl.float32:
        both = unpacked(byte, dtype, False)
    else:
        both = (tl.join(byte & 15, byte >> 4).to(tl.float32) - 8).to(dtype)
    # Vector, warp, row, thread, product, neighbour, half of columns, half of rows.
    parts = tl.permute(tl.reshape(both, [2, 4, 8, 4, 4, 2, 2, 2]), [1, 7, 2, 0, 4, 6, 3, 5])
    return tl.reshape(parts, [64, 128])


@triton.jit
def _e2m1(codes):
    """Numbers of codes in float16: their bits are those of numbers 2 ** 14 times smaller."""
    wide = codes.to(tl.uint16)
    moved = ((wide & 7) << 9) | ((wide & 8) << 12)
    return moved.to(tl.float16, bitcast=True) * 16384.0


@triton.jit
def _stored(data, table, first, line, start, dtype: tl.constexpr, KIND: tl.constexpr):
    """Numbers without scales: of dtype, which holds those of all layouts but tables' exactly."""
    if KIND.layout == "int4":
        return _by_tiles(data, first, start, dtype, KIND)
    elif KIND.layout == "lut":
        byte = _by_codes(data, line, start, KIND)
        if KIND.e2m1 and KIND.packs and dtype != tl.float32:
            return tl.reshape(unpacked(byte, dtype, True), [line.shape[0], KIND.depth])
        codes = tl.reshape(tl.join(byte & 15, byte >> 4), [line.shape[0], KIND.depth])
        if KIND.e2m1:
            return _e2m1(codes).to(dtype)
        else:
            place = codes.to(tl.int32)
            if KIND.tables:
                place += tl.where(line < KIND.n, line, 0)[:, None] * 16
            return tl.load(table + place)
    else:
        found = _by_bytes(data, line, start, KIND.columns, KIND.depth, KIND)
        if KIND.layout == "dense":
            return found
        elif KIND.layout == "int8":
            return found.to(dtype)
        else:
            return widened(found, dtype, 4, KIND.converts)


@triton.jit
def _scales_at(scale, line, group, KIND: tl.constexpr, ZEROS: tl.constexpr):
    """Of rows and groups, which are broadcast against one another: in float32. ZEROS: what stands
    for 0, not scales."""
    if KIND.layout == "int4":
        place = line // 64 * (KIND.groups * 64) + line % 64 + group * 64
    elif KIND.layout == "lut":
        place = line + group * KIND.n
    else:
        place = line // KIND.rows * KIND.groups + group
    found = tl.load(scale + place, mask=(line < KIND.n) & (group < KIND.groups), other=0)
    if ZEROS:
        return found.to(tl.float32)
    elif KIND.scale == "e8m0":
        return (found.to(tl.uint32) << 23).to(tl.float32, bitcast=True)
    elif KIND.scale == "e4m3":
        return widened(found, tl.float32, 4, KIND.converts)
    else:
        return found.to(tl.float32)


@triton.jit
def _of_tile(scale, line, start, KIND: tl.constexpr, ZEROS: tl.constexpr):
    """[BN, depth], one for each number; [BN, 1] where all columns have the same."""
    BN: tl.constexpr = line.shape[0]
    if KIND.scales == "each":
        group = column_of(start + tl.arange(0, KIND.depth), KIND.mixed)[None, :] // KIND.group
        return _scales_at(scale, line[:, None], group, KIND, ZEROS)
    elif KIND.scales == "depth":
        group = tl.zeros([1, 1], tl.int32) + start // KIND.group
        return _scales_at(scale, line[:, None], group, KIND, ZEROS)
    else:
        COUNT: tl.constexpr = KIND.depth // KIND.group
        group = (start // KIND.group + tl.arange(0, COUNT))[None, :]
        own = _scales_at(scale, line[:, None], group, KIND, ZEROS)
        if KIND.mixed and KIND.group < 64:
            # Of 64 places: of each thread's 16, each group has as many as the others.
            FEW: tl.constexpr = 64 // KIND.group
            own = tl.reshape(own, [BN, KIND.depth // 64, 1, FEW, 1])
            wide = tl.broadcast_to(own, [BN, KIND.depth // 64, 4, FEW, 16 // FEW])
        else:
            own = tl.reshape(own, [BN, COUNT, 1])
            wide = tl.broadcast_to(own, [BN, COUNT, KIND.group])
        return tl.reshape(wide, [BN, KIND.depth])


@triton.jit
def multiplied(
    acc, value, data, scale, zero, table, first, start,
    BN: tl.constexpr, PRECISION: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """acc [BN, BM] and the products of a tile, whose first row is `first`, with value
    [depth, BM]."""
    line = first + tl.arange(0, BN)
    tile = _stored(data, table, first, line, start, value.dtype, KIND)
    if KIND.zeros:
        tile = tile.to(tl.float32) - _of_tile(zero, line, start, KIND, True)
    if KIND.scales == "within" or KIND.scales == "each":
        by = _of_tile(scale, line, start, KIND, False)
        if KIND.scale == "e8m0" and value.dtype == tl.bfloat16:  # exact
            tile = tile * by.to(tl.bfloat16)
        else:
            tile = tile.to(tl.float32) * by
    tile = tile.to(value.dtype)
    if KIND.scales == "depth":
        by = _of_tile(scale, line, start, KIND, False)
        return acc + tl.dot(tile, value, input_precision=PRECISION) * by
    else:
        return tl.dot(tile, value, acc, input_precision=PRECISION)


assert TILE_COLUMNS == 128  # what the functions above have for it
