"""What the rest of the shard knows of a model."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from penstock_kernels.ops import Activation, AttentionSpec, Step
from penstock_shard.model.layers import VocabularyHead


class Model(Protocol):
    """This rank's share of a model, and how to run it."""

    head: VocabularyHead

    def forward(
        self,
        step: Step,
        tokens: Tensor,
        positions: Tensor,
        cache: Tensor,
        wanted: Tensor | None = None,
    ) -> Activation:
        """Hidden states of the rows of a step, as `head` wants them.

        tokens, positions: [n] int64; cache: [layers, 2, kv_heads, blocks, block_size, width],
        written in place; wanted: [m] int64, the rows to return (None: all). Returns [m, hidden].
        """

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states and logits."""

    def specs(self) -> list[AttentionSpec]:
        """The attention of each layer; so much is in the cache for a token."""

    def rope_tables(self, positions: int, device: torch.device) -> tuple[Tensor, ...]:
        """Rotary tables that the specs name, each [positions, 2, rotated / 2] float32."""

    def for_compiling(self) -> Self:
        """A model whose steps launch every kernel that those of the whole one do, and which reads
        no tokens: no kernel may have written any."""

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters on this rank; tied ones count once."""
