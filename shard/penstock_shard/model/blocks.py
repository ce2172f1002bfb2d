"""Blocks of a decoder: how attention, MLP, norms and the residual follow one another.

A block is handed its input already normalised, and normalises its output for the block behind it:
the norm reads what the last product added to the residual, which one kernel does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from penstock_kernels.ops import Activation, Norm, Step
from penstock_kernels.weight import Weight
from penstock_shard.model.layers import Attention, FeedForward, Mlp


@dataclass(frozen=True, slots=True)
class Following:
    """What comes behind a block: its norm, and the weight that reads first."""

    norm: Norm | None
    weight: Weight


class Block(Protocol):
    """One block of a decoder."""

    attention: Attention

    @property
    def mlp(self) -> FeedForward:
        """What is beside attention."""

    @property
    def input_norm(self) -> Norm | None:
        """Of the residual, before attention."""

    def forward(
        self,
        x: Activation,
        residual: Tensor,
        cache: Tensor,
        following: Following,
        step: Step,
        wanted: Tensor | None,
    ) -> tuple[Activation, Tensor]:
        """Output and residual of the `wanted` rows ([m] int64; None: all).

        x: [n, hidden], normalised; residual: [n, hidden], changed in place where all rows are
        wanted; cache: one layer's. Of rows that are not wanted keys and values are computed only.
        """

    def tensors(self) -> Iterator[Tensor]:
        """All parameters."""


@dataclass(slots=True)
class Sequential:
    """Attention, then the MLP, each behind a norm (Llama and most others)."""

    input_norm: Norm | None
    attention: Attention
    mlp_norm: Norm | None
    mlp: FeedForward

    def forward(
        self,
        x: Activation,
        residual: Tensor,
        cache: Tensor,
        following: Following,
        step: Step,
        wanted: Tensor | None,
    ) -> tuple[Activation, Tensor]:
        x, residual = _only(wanted, self.attention(x, cache, step), residual)
        x = self.attention.output.add_norm(x, residual, self.mlp_norm, self.mlp.reads, step)
        x = self.mlp.add_norm(x, residual, following.norm, following.weight, step)
        return x, residual

    def tensors(self) -> Iterator[Tensor]:
        yield from self.attention.tensors()
        yield from self.mlp.tensors()
        yield from norm_tensors(self.input_norm, self.mlp_norm)


@dataclass(slots=True)
class Sandwich:
    """As sequential, with a norm behind attention and MLP as well, before the residual (Gemma 2 and
    3; without those in front: OLMo 2)."""

    input_norm: Norm | None
    attention: Attention
    attention_norm: Norm
    mlp_norm: Norm | None
    mlp: FeedForward
    output_norm: Norm

    def forward(
        self,
        x: Activation,
        residual: Tensor,
        cache: Tensor,
        following: Following,
        step: Step,
        wanted: Tensor | None,
    ) -> tuple[Activation, Tensor]:
        x, residual = _only(wanted, self.attention(x, cache, step), residual)
        y = step.norm(self.attention.output(x, step), self.attention_norm).x
        x = step.add_norm(y, residual, self.mlp_norm, self.mlp.reads)
        y = step.norm(self.mlp(x, step), self.output_norm).x
        return step.add_norm(y, residual, following.norm, following.weight), residual

    def tensors(self) -> Iterator[Tensor]:
        yield from self.attention.tensors()
        yield from self.mlp.tensors()
        norms = (self.input_norm, self.attention_norm, self.mlp_norm, self.output_norm)
        yield from norm_tensors(*norms)


@dataclass(slots=True)
class Parallel:
    """Attention and MLP side by side, both of the same residual (GPT-NeoX, Falcon)."""

    input_norm: Norm | None
    attention: Attention
    mlp_norm: Norm | None  # None: the MLP reads what attention reads
    mlp: Mlp

    def forward(
        self,
        x: Activation,
        residual: Tensor,
        cache: Tensor,
        following: Following,
        step: Step,
        wanted: Tensor | None,
    ) -> tuple[Activation, Tensor]:
        attended, kept = _only(wanted, self.attention(x, cache, step), residual)
        if self.mlp_norm is not None:
            x = step.norm(kept, self.mlp_norm, self.mlp.up)
        elif wanted is not None:
            x = x.select(wanted)
        output, down = self.attention.output, self.mlp.down
        y = step.linear(attended, output.weight)
        y = y.add_(step.linear(self.mlp.inner(x, step), down.weight))
        x = output.group.add_norm(y, kept, following.norm, following.weight, step)
        return x, kept

    def tensors(self) -> Iterator[Tensor]:
        yield from self.attention.tensors()
        yield from self.mlp.tensors()
        yield from norm_tensors(self.input_norm, self.mlp_norm)


def _only(wanted: Tensor | None, x: Activation, residual: Tensor) -> tuple[Activation, Tensor]:
    if wanted is None:
        return x, residual
    return x.select(wanted), residual.index_select(0, wanted)


def norm_tensors(*norms: Norm | None) -> Iterator[Tensor]:
    """Parameters of norms."""
    for norm in norms:
        if norm is not None:
            yield from (part for part in (norm.weight, norm.bias) if part is not None)
