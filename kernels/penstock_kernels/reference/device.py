"""A device in plain torch: the CPU's path, and the reference of `gpu.device`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.draw import SamplingBatch, draw
from penstock_kernels.experts import Experts
from penstock_kernels.fp8 import bits, rounded_rows
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, QKNorm, StepBatch
from penstock_kernels.penalties import Penalties, penalise
from penstock_kernels.reference.activation import activate, gate
from penstock_kernels.reference.experts import mix
from penstock_kernels.reference.norm import normalise, qk_norm_
from penstock_kernels.reference.paged_attention import PagedBatch, paged_attention
from penstock_kernels.reference.rope import rotate_, rotation, write_kv
from penstock_kernels.weight import Layout, Weight


class TorchSampler:
    """In plain torch. rows_alone, draws_alone: see `ops.Sampler`."""

    def __init__(self, rows_alone: bool = False, draws_alone: bool = False) -> None:
        self.rows_alone, self.draws_alone = rows_alone, draws_alone

    def draw(self, logits: Tensor, draws: SamplingBatch) -> Tensor:
        return draw(logits, draws)

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        return penalise(logits, penalties)


class TorchDevice:
    """Everything in plain torch.

    ropes: tables of [positions, 2, rotated / 2] float32, cosines then sines; `AttentionSpec.rope`
    says which one a layer takes.
    """

    def __init__(self, ropes: tuple[Tensor, ...], block_size: int) -> None:
        self._ropes, self._block_size = ropes, block_size

    def step(self, batch: StepBatch) -> TorchStep:
        return TorchStep(batch, self._ropes, self._block_size)

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        cache = bits(cache)
        cache.index_copy_(3, target, cache.index_select(3, source))

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        bits(cache).index_fill_(3, torch.from_numpy(blocks.astype(np.int64)).to(cache.device), 0)


class TorchStep:
    """See `ops.Step`. Nothing is quantised on the way: `to` changes nothing."""

    def __init__(self, batch: StepBatch, ropes: tuple[Tensor, ...], block: int) -> None:
        plan = batch.plan
        assert plan is not None, "torch's steps are not captured"
        width = -(-int((plan.context + plan.queries).max()) // block)
        table = batch.block_table[:, :width].index_select(0, plan.sequences)
        self._pages = PagedBatch(table, plan.context, plan.queries, block)
        column = batch.position.div(block, rounding_mode="floor")
        location = batch.block_table[batch.slot, column].to(torch.int64)
        self._location = location.mul_(block).add_(batch.position).sub_(column.mul_(block))
        self._ropes, self._position = ropes, batch.position
        self._rotations: dict[int, tuple[Tensor, Tensor]] = {}  # by table

    def norm(self, x: Tensor, norm: Norm | None, to: Weight | None = None) -> Activation:
        return Activation(x if norm is None else normalise(x, norm))

    def add_norm(
        self, x: Tensor, residual: Tensor, norm: Norm | None, to: Weight | None = None
    ) -> Activation:
        return self.norm(residual.add_(x), norm)

    def linear(self, x: Activation, weight: Weight) -> Tensor:
        return linear(x.x, weight)

    def linear_add_norm(
        self,
        x: Activation,
        weight: Weight,
        residual: Tensor,
        norm: Norm | None,
        to: Weight | None = None,
    ) -> Activation:
        return self.add_norm(self.linear(x, weight), residual, norm)

    def gated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return Activation(gate(self.linear(x, weight), act))

    def activated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return Activation(activate(self.linear(x, weight), act))

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        return mix(x.x, self.linear(x, router), experts)

    def qkv(
        self,
        x: Activation,
        weight: Weight,
        spec: AttentionSpec,
        cache: Tensor,
        norm: QKNorm | None = None,
    ) -> Tensor:
        heads, rotated = spec.heads, spec.rotated_heads
        qkv = self.linear(x, weight).view(-1, rotated + spec.kv_heads, spec.width)
        if norm is not None:
            qk_norm_(qkv, norm, heads, spec.kv_heads)
        if spec.rope is not None:
            turned = qkv[:, :rotated, : spec.rotary]
            rotate_(turned, *self._rotation(spec.rope), spec.interleaved)
        write_kv(cache, qkv[:, heads:], self._location, spec.cache)
        return qkv[:, :heads]

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        return Activation(
            paged_attention(
                query, cache, self._pages, spec.scale, spec.window, spec.soft_cap, spec.cache, sinks
            )
        )

    def each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x)

    def _rotation(self, table: int) -> tuple[Tensor, Tensor]:
        if table not in self._rotations:
            self._rotations[table] = rotation(self._ropes[table], self._position)
        return self._rotations[table]


def linear(x: Tensor, weight: Weight) -> Tensor:
    """x W^T + b: what every product must compute. x: [n, k]; returns [n, outputs] of x's dtype."""
    x = rounded_rows(x) if weight.fp8_rows else x
    return F.linear(x, dense(weight, x.dtype), weight.bias)


def dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    """The matrix [n, k] of a weight: as stored where it is dense, else of dtype."""
    return weight.data if weight.layout is Layout.DENSE else weight.dequantised().to(dtype)
