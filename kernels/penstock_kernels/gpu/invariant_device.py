"""A device whose results do not depend on what else is computed: `--deterministic`.

Products are those of `products.invariant`, attention is that of `attention.invariant_attention`.
Norms, rotations, activation functions, draws and the choice among logits are the kernels of every
other device: each takes a row by itself, in the same way whatever the number of rows.

Reference: `penstock_kernels.reference.invariant_device`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.attention.invariant_attention import InvariantAttention
from penstock_kernels.gpu.device import KernelDevice, shape_of
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.gpu.products.invariant import invariant_products
from penstock_kernels.gpu.step.step import KernelStep
from penstock_kernels.ops import Activation, AttentionSpec, StepBatch
from penstock_kernels.weight import Weight

EXPERT_ROWS = 64  # of a tile of pairs


class InvariantTritonDevice(KernelDevice):
    """Arguments as of `gpu.device.TritonDevice`."""

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        ropes: tuple[Tensor, ...],
        max_decode_rows: int,
        cache: Tensor | None = None,
        dependent: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        device = ropes[0].device
        dtype = dtype or (torch.bfloat16 if cache is None else cache.dtype)
        self.attention = InvariantAttention(max_decode_rows, shape_of(specs), device, dtype)
        products = invariant_products(device, dtype)
        # Rows that share tokens are not read together: tiles of one row leave nothing to share.
        super().__init__(ropes, dependent, products, self.attention.piece_rows, 1)

    def step(self, batch: StepBatch) -> InvariantTritonStep:
        return InvariantTritonStep(self, batch)


class InvariantTritonStep(KernelStep):
    """See `ops.Step`."""

    def __init__(self, device: InvariantTritonDevice, batch: StepBatch) -> None:
        super().__init__(device, batch)
        self._attention = device.attention
        rows = batch.decode_rows
        self._singles = self._attention.singles(rows, batch.live) if rows else None

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        batch, rows = self._batch, self._batch.decode_rows
        out = query.new_empty(len(query), spec.heads * spec.width)
        shared = (query, cache, batch.block_table, batch.slot, batch.position)
        if self._singles is not None:
            programs = self._attention.programs(rows)
            self._attention(*shared, self._singles, out, spec, programs, sinks)
        if self._pieces is not None:
            self._attention(*shared, self._pieces, out, spec, sinks=sinks)
        return self._for(to, out)

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        return mix(x.x, self.linear(x, router), experts, self._dependent, EXPERT_ROWS)
