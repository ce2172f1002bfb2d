"""The decoder: one forward pass over the rows of a step, for every family of architecture.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.activation import silu_mul
from penstock_kernels.norm import add_rms_norm, rms_norm
from penstock_kernels.paged_attention import PagedBatch, paged_attention
from penstock_kernels.rope import rotate_, rotation, write_kv
from penstock_shard.architecture import Architecture
from penstock_shard.parallel import (
    Linear,
    Partition,
    RowParallelLinear,
    VocabularyEmbedding,
    VocabularyHead,
)


@dataclass(slots=True)
class Layer:
    """Parameters of one block, this rank's share."""

    input_norm: Tensor  # [hidden]
    qkv: Linear  # queries, keys, values of this rank's heads
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]
    output: RowParallelLinear
    mlp_norm: Tensor  # [hidden]
    gate_up: Linear
    down: RowParallelLinear
    window: int | None


@dataclass(slots=True)
class Decoder:
    """A model's parameters on this rank, and how to run them."""

    model: Architecture
    partition: Partition
    embedding: VocabularyEmbedding
    layers: list[Layer]
    norm: Tensor  # [hidden]
    head: VocabularyHead

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        location: Tensor,
        batch: PagedBatch,
        cache: Tensor,
        rope_table: Tensor,
    ) -> Tensor:
        """Hidden states of the rows of a step, before the final norm.

        tokens, positions, location: [n] int64 (location: where the row's keys and values go, block
        * block_size + offset); cache: [layers, 2, kv_heads, blocks, block_size, head_dim], written
        in place. Returns [n, hidden].
        """
        residual = self.embedding(tokens)
        cos, sin = rotation(rope_table, positions)
        x = torch.zeros_like(residual)  # what the previous block adds
        for layer, layer_cache in zip(self.layers, cache.unbind(0), strict=True):
            x = add_rms_norm(x, residual, layer.input_norm, self.model.norm_eps)
            x = self._attention(layer, x, cos, sin, location, batch, layer_cache)
            x = add_rms_norm(x, residual, layer.mlp_norm, self.model.norm_eps)
            x = layer.down(silu_mul(layer.gate_up(x)))
        return residual.add_(x)

    def logits(self, hidden: Tensor) -> Tensor | None:
        """[n, hidden] to [n, vocab_size] float32 on rank 0, None elsewhere."""
        return self.head(rms_norm(hidden, self.norm, self.model.norm_eps))

    def _attention(
        self,
        layer: Layer,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        location: Tensor,
        batch: PagedBatch,
        cache: Tensor,
    ) -> Tensor:
        heads, kv_heads = len(self.partition.heads), len(self.partition.kv_heads)
        width = self.model.head_dim
        qkv = layer.qkv(x).view(-1, heads + 2 * kv_heads, width)
        qk = qkv[:, : heads + kv_heads]
        if layer.qk_norm is not None:
            qk.copy_(rms_norm(qk, layer.qk_norm, self.model.norm_eps))
        rotate_(qk, cos, sin)
        write_kv(cache, qkv[:, heads:], location)
        out = paged_attention(qkv[:, :heads], cache, batch, width**-0.5, layer.window)
        return layer.output(out)
