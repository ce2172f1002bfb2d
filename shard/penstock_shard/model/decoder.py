"""The decoder: one forward pass over the rows of a step, for every family of families.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.ops import Activation, AttentionSpec, CacheSpec, Norm, Step
from penstock_shard.model.blocks import Block, Following, norm_tensors
from penstock_shard.model.layers import VocabularyEmbedding, VocabularyHead, ZeroEmbedding
from penstock_shard.model.rope import rope_table
from penstock_shard.model.rope_config import Rope


@dataclass(slots=True)
class Decoder:
    """A model's parameters on this rank, and how to run them."""

    embedding: VocabularyEmbedding
    blocks: list[Block]
    norm: Norm | None
    head: VocabularyHead
    ropes: tuple[tuple[Rope, int], ...]  # and how many elements of a head each rotates

    def forward(
        self,
        step: Step,
        tokens: Tensor,
        positions: Tensor,
        cache: Tensor,
        wanted: Tensor | None = None,
    ) -> Activation:
        """Hidden states of the rows of a step, as `head` wants them: after the final norm.

        tokens, positions: [n] int64; cache: [layers, 2, kv_heads, blocks, block_size, width],
        written in place; wanted: [m] int64, the rows to return (None: all). Of the others the last
        layer computes keys and values only, which saves nine tenths of it for a prompt.
        Returns [m, hidden].
        """
        first, *others = self.blocks
        residual = self.embedding(tokens, positions)
        x = step.norm(residual, first.input_norm, first.attention.qkv)
        behind = [Following(block.input_norm, block.attention.qkv) for block in others]
        behind.append(Following(self.norm, self.head.weight))
        for block, layer, following in zip(self.blocks, cache.unbind(0), behind, strict=True):
            some = wanted if block is self.blocks[-1] else None
            x, residual = block.forward(x, residual, layer, following, step, some)
        return x

    @property
    def dtype(self) -> torch.dtype:
        """Of what it computes."""
        return self.embedding.table.dtype

    def specs(self) -> list[AttentionSpec]:
        """The attention of each layer."""
        return [block.attention.spec for block in self.blocks]

    def rope_tables(self, positions: int, device: torch.device) -> tuple[Tensor, ...]:
        if not self.ropes:  # one that nobody reads: devices take their place from it
            return (torch.empty(0, device=device),)
        return tuple(rope_table(rope, width, positions, device) for rope, width in self.ropes)

    def for_compiling(self) -> Decoder:
        """The first block of each kind and the last block, which computes fewer rows."""
        kinds: dict[object, Block] = {}
        for block in self.blocks[:-1]:
            kinds.setdefault(_kind(block), block)
        return replace(
            self,
            blocks=[*kinds.values(), self.blocks[-1]],
            embedding=ZeroEmbedding(self.embedding.table, 0, self.embedding.group),
        )

    def tensors(self) -> Iterator[Tensor]:
        """All parameters of this rank; tied ones come more than once."""
        yield from self.embedding.tensors()
        for block in self.blocks:
            yield from block.tensors()
        yield from norm_tensors(self.norm)
        yield from self.head.weight.tensors()

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters on this rank; tied ones count once."""
        unique = {id(tensor): tensor.nbytes for tensor in self.tensors()}
        return sum(unique.values())


def _kind(block: Block) -> object:
    """Blocks of one kind launch the same kernels."""
    shapes = tuple((tensor.shape, tensor.dtype) for tensor in block.tensors())
    spec = block.attention.spec
    return type(block), replace(spec, cache=CacheSpec(spec.cache.dtype)), shapes
