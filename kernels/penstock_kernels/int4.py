"""Matrices in whole numbers of 4 bits, in the order in which Hopper's tensor cores take them.

A matrix is cut into tiles of 64 rows and 128 columns, 4096 bytes that stand together, those of 64
rows one behind the other. Of the tile's 128 threads each finds two vectors of 16 bytes; a word of
four bytes is what one product of 16 columns takes from a thread: numbers of rows g and g + 8 and of
columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 (PTX ISA, "Matrix fragments for wgmma.mma_async.m64nNk16",
of A). Number i of a word and number i + 4 are neighbours in a register of half precision, so
shifts and one mask widen two at once.

Numbers are stored plus 8. Rows and columns that fill up the last tiles have a scale of 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 64  # of a tile
COLUMNS = 128
BYTES = ROWS * COLUMNS // 2
MIDDLE = 8
LEAST_GROUP = 16  # columns: what one product takes

PRODUCT = 16  # columns whose numbers a word has

# A tile's rows are 4 warps, 2 halves and 8 of a warp's; its columns 2 vectors, 4 products, 2
# halves, 4 threads and 2 neighbours.
_SHAPE = (4, 2, 8, 2, 4, 2, 4, 2)
# Vector, warp, row, thread, product; then within a word: neighbour, half of columns, half of rows.
_IN_MEMORY = (3, 0, 2, 6, 4, 7, 5, 1)
_BACK = (1, 7, 2, 0, 4, 6, 3, 5)


def pack(q: Tensor) -> Tensor:
    """q: [n, k] int8, from -8 to 7. Returns [n / 64, k / 128, 4096] uint8, both rounded up."""
    n, k = q.shape
    stored = F.pad(q, (0, -k % COLUMNS, 0, -n % ROWS)).add_(MIDDLE).view(torch.uint8)
    tall, wide = stored.shape[0] // ROWS, stored.shape[1] // COLUMNS
    stored = stored.view(tall, *_SHAPE[:3], wide, *_SHAPE[3:])
    at = tuple(axis + 1 if axis < 3 else axis + 2 for axis in _IN_MEMORY)
    stored = stored.permute(0, 4, *at).reshape(tall, wide, BYTES, 2)
    return stored[..., 0] | stored[..., 1] << 4


def unpack(data: Tensor) -> Tensor:
    """What `pack` packed, with the rows and columns that fill up: int8."""
    tall, wide = data.shape[:2]
    numbers = torch.stack((data & 15, data >> 4), dim=-1).view(torch.int8).sub_(MIDDLE)
    numbers = numbers.view(tall, wide, *(_SHAPE[axis] for axis in _IN_MEMORY))
    rows, columns = (tuple(axis + 2 for axis in part) for part in (_BACK[:3], _BACK[3:]))
    return numbers.permute(0, *rows, 1, *columns).reshape(tall * ROWS, wide * COLUMNS)


def pack_scales(scale: Tensor, group: int, k: int) -> Tensor:
    """The scales (or zeros) of groups of `group` columns, which divides 128. scale: [n, k / group],
    rounded up. Returns [n / 64, groups of the tiles, 64]."""
    n, groups = scale.shape
    stored = -(-k // COLUMNS) * COLUMNS // group
    scale = F.pad(scale, (0, stored - groups, 0, -n % ROWS))
    return scale.view(-1, ROWS, stored).transpose(1, 2).contiguous()


def unpack_scales(scale: Tensor) -> Tensor:
    """[n, groups], with what fills up."""
    return scale.transpose(1, 2).reshape(-1, scale.shape[1])


def interleave(x: Tensor) -> Tensor:
    """Columns in the order in which a tile's words have their numbers, for products in FP8: of each
    16 those of a thread are neighbours. x: [n, k], k a multiple of 16."""
    n, k = x.shape
    parts = x.view(n, k // PRODUCT, 2, 4, 2)  # halves, threads, neighbours
    return parts.permute(0, 1, 3, 4, 2).reshape(n, k)
