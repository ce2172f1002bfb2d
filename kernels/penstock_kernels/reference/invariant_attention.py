"""Attention, on a CPU, in which a token's result depends on nothing but its own sequence.

Reference: `paged_attention`. A token's keys are filled up to a width that follows from its place in
the sequence: the next power of two. So a token that is decoded, one of a chunk and one whose
context was cached are summed in the same order. Behind the token's own keys are zeros with no
weight, which change no sum. Tokens of a sequence that have one width share a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.fp8 import bits
from penstock_kernels.ops import AttentionSpec
from penstock_kernels.reference.invariant_elements import each
from penstock_kernels.reference.invariant_products import InvariantProducts
from penstock_kernels.reference.paged_attention import PagedBatch

NARROWEST = 64  # keys
TILE = 64  # rows, a token's heads of one KV head each: bounds the scores of a tile


@dataclass(frozen=True, slots=True)
class Tile:
    """Neighbouring tokens of a sequence: rows of a step."""

    sequence: int
    row: int
    count: int
    position: int  # of the first
    width: int  # keys


def width_of(position: int) -> int:
    """Keys of a token there, hidden ones included."""
    return max(NARROWEST, 1 << position.bit_length())


def tiles_of(batch: PagedBatch, tokens: int) -> Iterator[Tile]:
    """All rows of a step in tiles of at most so many tokens."""
    rows = np.cumsum(batch.queries) - batch.queries
    for sequence, (row, first, count) in enumerate(
        zip(rows.tolist(), batch.context.tolist(), batch.queries.tolist(), strict=True)
    ):
        done = 0
        while done < count:
            position = first + done
            width = width_of(position)
            some = min(count - done, tokens, width - position)
            yield Tile(sequence, row + done, some, position, width)
            done += some


def invariant_attention(
    query: Tensor,
    cache: Tensor,
    batch: PagedBatch,
    spec: AttentionSpec,
    products: InvariantProducts,
    sinks: Tensor | None = None,
) -> Tensor:
    """See `paged_attention`. query: [n, heads, d]; sinks: [heads] float32. Returns [n, heads * d]
    of its dtype; sums are in float32."""
    count, heads, width = query.shape
    group = heads // spec.kv_heads
    out = query.new_empty(count, heads * width)
    for tile in tiles_of(batch, max(1, TILE // group)):
        rows = slice(tile.row, tile.row + tile.count)
        key, value = _gather(cache, batch, tile)
        q = query[rows].float().view(tile.count, spec.kv_heads, group, width).transpose(0, 1)
        q = q.reshape(spec.kv_heads, tile.count * group, width) * (
            spec.scale * spec.cache.key_scale
        )
        scores = products(q, key)
        if spec.soft_cap is not None:
            scores = each(torch.tanh, scores / spec.soft_cap).mul_(spec.soft_cap)
        hidden = _hidden(tile, spec.window).repeat_interleave(group, dim=0)
        weights = _softmax(scores.masked_fill_(hidden, -torch.inf), sinks)
        result = products(weights, value.transpose(1, 2))
        if spec.cache.value_scale != 1:
            result.mul_(spec.cache.value_scale)
        result = result.view(spec.kv_heads, tile.count, group * width).transpose(0, 1)
        out[rows] = result.reshape(tile.count, heads * width).to(out.dtype)
    return out


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """scores: [kv_heads, tokens * group, keys]; a sink is a score beside them, of no weight."""
    if sinks is None:
        return scores.softmax(dim=-1)
    by_head = sinks.view(len(scores), 1, -1)  # [kv_heads, 1, group]
    sink = by_head.expand(-1, scores.shape[1] // by_head.shape[2], -1).reshape(len(scores), -1, 1)
    return torch.cat((scores, sink), dim=-1).softmax(dim=-1)[..., :-1].contiguous()


def _gather(cache: Tensor, batch: PagedBatch, tile: Tile) -> tuple[Tensor, Tensor]:
    """Keys and values, each [kv_heads, width of the tile, d] float32."""
    end = tile.position + tile.count
    blocks = batch.block_table[tile.sequence, : -(-end // batch.block_size)].long()
    some = bits(cache).index_select(2, blocks).view(cache.dtype).float().flatten(2, 3)[:, :, :end]
    key, value = F.pad(some, (0, 0, 0, tile.width - end)).unbind(0)
    return key.contiguous(), value.contiguous()


def _hidden(tile: Tile, window: int | None) -> Tensor:
    """[tokens, keys]: where a token may not look."""
    position = torch.arange(tile.position, tile.position + tile.count).unsqueeze(1)
    key = torch.arange(tile.width)
    hidden = key > position
    return hidden if window is None else hidden | (key <= position - window)
