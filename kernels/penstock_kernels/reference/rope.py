"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Most checkpoints in the Hugging Face layout pair element i of a head with element i + d/2, some its
neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_kernels.fp8 import bits, saturated
from penstock_kernels.ops import AS_MODEL, CacheSpec


def rotation(table: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of each row, gathered once a step and used by every layer.

    table: [positions, 2, d/2] float32, cosines then sines; positions: [n] int64.
    Returns (cos, cos) and (-sin, sin), each [n, 1, d] float32.
    """
    cos, sin = table.index_select(0, positions).unsqueeze(2).unbind(1)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> None:
    """Rotate x in place. x: [n, heads, d], any float dtype; cos, sin as `rotation` returns them;
    interleaved: neighbours against each other, not halves.

    Products and sums are rounded each by itself: where both are one instruction, whether that is
    taken may depend on an element's place.
    """
    if interleaved:
        pairs = x.view(*x.shape[:-1], -1, 2).mT
        halves = pairs.reshape(x.shape)  # a copy
        rotate_(halves, cos, sin)
        pairs.copy_(halves.view(pairs.shape))
        return
    wide = x.float()  # x itself where it is float32
    swapped = torch.roll(wide, x.shape[-1] // 2, dims=-1)
    x.copy_(wide.mul_(cos).add_(swapped.mul_(sin)))


def write_kv(cache: Tensor, kv: Tensor, location: Tensor, stored: CacheSpec = AS_MODEL) -> None:
    """Store the keys and values of new tokens in the paged cache.

    cache: [2, kv_heads, blocks, block_size, d] of one layer, of kv's type or FP8;
    kv: [n, 2 * kv_heads, d], keys first; location: [n] int64, block * block_size + offset;
    stored: the scales of a cache in FP8.
    """
    two, heads, blocks, block_size, width = cache.shape
    if cache.dtype.itemsize == 1:
        by_key, by_value = stored.inverses
        keys, values = kv.float().chunk(2, dim=1)
        kv = saturated(torch.cat((keys * by_key, values * by_value), dim=1), cache.dtype)
    flat = bits(cache).view(two * heads, blocks * block_size, width)
    flat.index_copy_(1, location, bits(kv).transpose(0, 1))
