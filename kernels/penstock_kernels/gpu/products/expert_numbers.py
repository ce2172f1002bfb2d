"""Tiles of an expert's matrix, from what is stored to what tensor cores multiply, in registers.

A tile is [BN, depth]: rows of the matrix from `first` on, and of the stored columns those from
`start` on. Kernels are compiled for a `Kind`, which says what is stored. Layouts whose columns are
reordered are put in order here: a thread then finds what it multiplies side by side.

Reference: `penstock_kernels.weight.Weight.dequantised`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from penstock_kernels.gpu.attention.kv8 import widened
from penstock_kernels.gpu.products.pairs import less, of_bytes, times, two_a_byte, whole_numbers
from penstock_kernels.int4 import COLUMNS


@triton.jit
def _stored(data, line, start, STRIDE: tl.constexpr, COUNT: tl.constexpr, KIND: tl.constexpr):
    """COUNT elements of rows of STRIDE."""
    place = start + tl.arange(0, COUNT)
    pointers = data + line.to(tl.int64)[:, None] * STRIDE + place[None, :]
    if KIND.whole:
        return tl.load(pointers)
    else:
        wanted = (line < KIND.n)[:, None] & (place < STRIDE)[None, :]
        return tl.load(pointers, mask=wanted, other=0)


@triton.jit
def _in_order(tile, KIND: tl.constexpr):
    """Columns that `fp8.interleave` has reordered as they were."""
    if KIND.mixed:
        # Of 64: thread, product, half, neighbour.
        parts = tl.reshape(tile, [tile.shape[0], KIND.depth // 64, 4, 4, 2, 2])
        parts = tl.permute(parts, [0, 1, 3, 4, 2, 5])
        return tl.reshape(parts, [tile.shape[0], KIND.depth])
    else:
        return tile


@triton.jit
def _of_tiles(data, first, start, dtype: tl.constexpr, BN: tl.constexpr, KIND: tl.constexpr):
    """Whole numbers of a tile of 64 rows and 128 columns, or of 16 or 32 of its rows: see
    `penstock_kernels.int4`."""
    tile = first // 64 * ((KIND.columns + 127) // 128) + start // 128
    place = tl.arange(0, BN * 64)
    if BN < 64:
        place = place // (BN * 32) * 2048 + place % (BN * 32) + first % 64 // 16 * 512
    byte = tl.load(data + tile.to(tl.int64) * 4096 + place)
    if KIND.packs:
        both = whole_numbers(byte, dtype)
    else:
        both = (tl.join(byte & 15, byte >> 4).to(tl.float32) - 8).to(dtype)
    # Vector, warp, row, thread, product, neighbour, half of columns, half of rows.
    parts = tl.reshape(both, [2, BN // 16, 8, 4, 4, 2, 2, 2])
    return tl.reshape(tl.permute(parts, [1, 7, 2, 0, 4, 6, 3, 5]), [BN, 128])


@triton.jit
def _of_codes(data, table, line, start, dtype: tl.constexpr, KIND: tl.constexpr):
    """What codes of 4 bits stand for."""
    byte = _stored(data, line, start // 2, KIND.columns // 2, KIND.depth // 2, KIND)
    BN: tl.constexpr = line.shape[0]
    if KIND.lookup != "":
        CODE: tl.constexpr = KIND.lookup
        numbers = tl.reshape(two_a_byte(byte, CODE, dtype), [BN, KIND.depth])
        return _in_order(numbers, KIND)
    else:
        codes = tl.reshape(tl.join(byte & 15, byte >> 4), [BN, KIND.depth])
        return _looked_up(_in_order(codes, KIND), table, line, dtype, KIND)


@triton.jit
def _looked_up(codes, table, line, dtype: tl.constexpr, KIND: tl.constexpr):
    if KIND.code == "e2m1":
        # Their bits are those of numbers 2 ** 14 times smaller.
        wide = codes.to(tl.uint16)
        moved = ((wide & 7) << 9) | ((wide & 8) << 12)
        return (moved.to(tl.float16, bitcast=True) * 16384.0).to(dtype)
    else:
        place = codes.to(tl.int32)
        if KIND.tables:
            place += tl.where(line < KIND.n, line, 0)[:, None] * 16
        return tl.load(table + place)


@triton.jit
def _numbers(data, table, first, line, start, dtype: tl.constexpr, KIND: tl.constexpr):
    """Without scales: of dtype, which holds those of all layouts but tables' exactly."""
    if KIND.layout == "int4":
        return _of_tiles(data, first, start, dtype, line.shape[0], KIND)
    elif KIND.layout == "lut":
        return _of_codes(data, table, line, start, dtype, KIND)
    else:
        found = _stored(data, line, start, KIND.columns, KIND.depth, KIND)
        if KIND.layout == "dense":
            return found
        elif KIND.packs and dtype == tl.bfloat16:
            return _in_order(of_bytes(found, KIND.layout == "int8"), KIND)
        elif KIND.layout == "int8":
            return _in_order(found.to(dtype), KIND)
        else:
            return _in_order(widened(found, dtype, 4, KIND.converts), KIND)


@triton.jit
def _stored_scales(scale, first, start, BN: tl.constexpr, KIND: tl.constexpr):
    """Of a tile's rows and groups, [BN, groups], as they are stored; [BN / 4, groups] of words."""
    if KIND.words:
        line = (first // 4 + tl.arange(0, BN // 4))[:, None]
    else:
        line = (first + tl.arange(0, BN))[:, None]
    ROWS: tl.constexpr = KIND.n // 4 if KIND.words else KIND.n
    if KIND.scales == "each":
        group = (start + tl.arange(0, KIND.depth))[None, :] // KIND.group
    elif KIND.scales == "within":
        group = (start // KIND.group + tl.arange(0, KIND.depth // KIND.group))[None, :]
    else:
        group = tl.zeros([1, 1], tl.int32) + start // KIND.group
    if KIND.layout == "int4":
        place = line // 64 * (KIND.groups * 64) + line % 64 + group * 64
    elif KIND.layout == "lut":
        place = line + group * ROWS
    else:
        place = line // KIND.rows * KIND.groups + group
    return tl.load(scale + place, mask=(line < ROWS) & (group < KIND.groups), other=0)


@triton.jit
def scales_of(scale, zero, first, start, BN: tl.constexpr, KIND: tl.constexpr):
    """A tile's scales and what stands for 0, as they are stored; 0 where there are none. One tile
    ahead they come while numbers are multiplied."""
    by, less = 0, 0
    if KIND.scales != "none":
        by = _stored_scales(scale, first, start, BN, KIND)
        if KIND.zeros:
            less = _stored_scales(zero, first, start, BN, KIND)
    return by, less


@triton.jit
def _of_words(word):
    """Bytes [rows, groups] of words [rows / 4, groups]. Triton copies words to shared memory ahead,
    but single bytes of few groups it does not, and waits for them."""
    SHAPE: tl.constexpr = [word.shape[0], word.shape[1]]
    even = tl.join(tl.full(SHAPE, 0, tl.int32), tl.full(SHAPE, 16, tl.int32))
    odd = tl.join(tl.full(SHAPE, 8, tl.int32), tl.full(SHAPE, 24, tl.int32))
    shift = tl.reshape(tl.join(even, odd), [word.shape[0], word.shape[1], 4])
    four = tl.permute(word[:, :, None] >> shift & 255, [0, 2, 1])
    return tl.reshape(four, [word.shape[0] * 4, word.shape[1]])


@triton.jit
def _in_float32(found, KIND: tl.constexpr):
    """What `scales_of` found, of scales."""
    if KIND.words:
        found = _of_words(found)
    if KIND.scale == "e8m0":
        return (found.to(tl.uint32) << 23).to(tl.float32, bitcast=True)
    elif KIND.scale == "e4m3":
        return widened(found, tl.float32, 4, KIND.converts)
    else:
        return found.to(tl.float32)


@triton.jit
def _of_numbers(own, KIND: tl.constexpr):
    """One for each number [BN, depth], of those of groups; [BN, 1] where all columns have one."""
    if KIND.scales == "within":
        BN: tl.constexpr = own.shape[0]
        COUNT: tl.constexpr = KIND.depth // KIND.group
        wide = tl.broadcast_to(tl.reshape(own, [BN, COUNT, 1]), [BN, COUNT, KIND.group])
        return tl.reshape(wide, [BN, KIND.depth])
    else:
        return own


@triton.jit
def meant(
    data, by, zero, table, first, start, dtype: tl.constexpr, BN: tl.constexpr,
    KIND: tl.constexpr,
):  # fmt: skip
    """A tile [BN, depth], of dtype or of float32, and what its products are multiplied with:
    [BN, 1] where all columns have the same scale, else 1. by, zero: its `scales_of`."""
    line = first + tl.arange(0, BN)
    tile = _numbers(data, table, first, line, start, dtype, KIND)
    if KIND.zeros:  # whole numbers of up to 8 bits: half precision has the differences
        zeros = tl.broadcast_to(_of_numbers(zero.to(dtype), KIND), [BN, KIND.depth])
        tile = less(tile, zeros) if KIND.packs else tile - zeros
    if KIND.scales == "within" or KIND.scales == "each":
        own = _in_float32(by, KIND)
        if KIND.packs and KIND.scale != "float" and dtype == tl.bfloat16:  # exact
            tile = times(tile, _of_numbers(own.to(dtype), KIND))
        else:
            tile = tile.to(tl.float32) * _of_numbers(own, KIND)
    if KIND.scales == "depth":
        return tile, _in_float32(by, KIND)
    else:
        return tile, 1.0


@triton.jit
def ended(acc, scale, outer, bias, line, KIND: tl.constexpr):
    """[BN, columns], with what multiplies or is added to whole rows of the matrix."""
    inside = line < KIND.n
    if KIND.of_rows:
        acc *= tl.load(scale + line, mask=inside, other=0.0)[:, None]
    if KIND.outer:
        acc *= tl.load(outer + line, mask=inside, other=0.0)[:, None]
    if KIND.biased:
        acc += tl.load(bias + line, mask=inside, other=0.0).to(tl.float32)[:, None]
    return acc


assert COLUMNS == 128  # what the functions above have for it
