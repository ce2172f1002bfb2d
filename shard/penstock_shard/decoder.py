"""The decoder: one forward pass over the rows of a step, for every family of architecture.py."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penstock_kernels.backend import Backend, Rows
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
        rows: Rows,
        cache: Tensor,
        backend: Backend,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of the rows of a step, as `logits` wants them: after the final norm.

        tokens: [n] int64; cache: [layers, 2, kv_heads, blocks, block_size, head_dim], written in
        place; wanted: [m] int64, the rows to return (None: all). Of the others the last layer
        computes keys and values only, which saves nine tenths of it for a prompt.
        Returns [m, hidden].
        """
        eps = self.model.norm_eps
        residual = self.embedding(tokens)
        attend = backend.attention(rows)
        # What a layer adds is normalised for the next one, at the end for the head.
        next_norms = [*(layer.input_norm for layer in self.layers), self.norm]
        x = backend.rms_norm(residual, next_norms.pop(0), eps)
        parts = zip(self.layers, cache.unbind(0), next_norms, strict=True)
        for layer, layer_cache, next_norm in parts:
            qkv, gate_up = layer.qkv, layer.gate_up
            x = attend(x, qkv.weight, qkv.bias, layer_cache, layer.qk_norm, layer.window)
            if wanted is not None and layer is self.layers[-1]:
                x, residual = x.index_select(0, wanted), residual.index_select(0, wanted)
            x = layer.output.add_rms_norm(x, residual, layer.mlp_norm, eps, backend)
            x = backend.gated_linear(x, gate_up.weight, gate_up.bias)
            x = layer.down.add_rms_norm(x, residual, next_norm, eps, backend)
        return x

    def logits(self, hidden: Tensor, backend: Backend) -> Tensor | None:
        """[n, hidden] to [n, vocab_size] on rank 0, None elsewhere."""
        return self.head(hidden, backend)
