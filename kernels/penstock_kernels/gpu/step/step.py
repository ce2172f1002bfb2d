"""The operations of one step as kernels: those of rows, and attention over their sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from penstock_kernels.gpu.attention.decode_plan import DecodePlan
from penstock_kernels.gpu.attention.hopper_plan import HopperPlan
from penstock_kernels.gpu.attention.kv8 import inverses
from penstock_kernels.gpu.attention.prefill_attention import prefill_attention
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Activation, AttentionSpec, QKNorm, StepBatch
from penstock_kernels.weight import Weight

if TYPE_CHECKING:
    from penstock_kernels.gpu.device import KernelDevice, TritonDevice


class KernelStep(TritonRows):
    """What steps have in common: all but attention."""

    def __init__(self, device: KernelDevice, batch: StepBatch) -> None:
        super().__init__(device.dependent, device.products)
        self._ropes, self._batch = device.ropes, batch
        self._pieces = batch.pieces if batch.plan is None else _eager_pieces(device, batch)

    def qkv(
        self,
        x: Activation,
        weight: Weight,
        spec: AttentionSpec,
        cache: Tensor,
        norm: QKNorm | None = None,
    ) -> Tensor:
        self._plan(spec)
        placement = self._placement(spec, cache)
        launch = None
        if norm is None and spec.rotates_halves:
            launch = self._products.find(Epilogue.ROTATE, x, weight, spec.width)
        if launch is not None:
            query: Tensor = launch(x, weight, self._dependent, cache, placement)
        else:
            qkv = self.linear(x, weight)
            rope_and_write(qkv, cache, placement, spec, norm, self._dependent)
            query = qkv[:, : spec.heads * spec.width]
        return query.view(-1, spec.heads, spec.width)

    def _plan(self, spec: AttentionSpec) -> None:
        """What attention of this layer needs beside its tensors, launched before it is read."""

    def _placement(self, spec: AttentionSpec, cache: Tensor) -> RowPlacement:
        batch, angles = self._batch, self._ropes[spec.rope or 0]
        by = inverses(cache, spec.cache)
        return RowPlacement(batch.slot, batch.position, batch.block_table, angles, by)


class TritonStep(KernelStep):
    """See `ops.Step`."""

    def __init__(self, device: TritonDevice, batch: StepBatch) -> None:
        super().__init__(device, batch)
        self._device = device
        # By window. Of one kind: a device has one kernel for all of its layers.
        self._plans: dict[int | None, DecodePlan] = {}
        self._hopper_plans: dict[int | None, HopperPlan] = {}

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        batch, device, window = self._batch, self._device, spec.window
        table, decoding = batch.block_table, batch.decode_rows
        out = query.new_empty(len(query), spec.heads * spec.width)
        if decoding and device.hopper is not None:
            plan = self._hopper_plans[window]
            device.hopper(query[:decoding], cache, table, out, plan, spec.scale, spec.cache, sinks)
        elif decoding:
            device.decode(
                query[:decoding], cache, table, batch.slot[:decoding], batch.position[:decoding],
                out, self._plans[window], spec.scale, window,
                spec.soft_cap, spec.cache, sinks,
            )  # fmt: skip
        if self._pieces is not None:
            prefill_attention(
                query, cache, table, batch.slot, batch.position, self._pieces, out, spec.scale,
                window, spec.soft_cap, spec.cache, sinks,
            )  # fmt: skip
        return self._for(to, out)

    def _plan(self, spec: AttentionSpec) -> None:
        """Plan the decode rows of the layers with this window, once a step. Two launches before it
        is read: attention does so while the one before it still runs."""
        batch, decoding, window = self._batch, self._batch.decode_rows, spec.window
        hopper = self._device.hopper
        if not decoding:
            return
        positions = batch.position[:decoding]
        if hopper is not None:
            if window not in self._hopper_plans:
                self._hopper_plans[window] = hopper.plan(
                    positions, batch.slot[:decoding], batch.live, batch.sharing, window
                )
        elif window not in self._plans:
            self._plans[window] = self._device.decode.plan(
                positions, batch.live, batch.sharing, window
            )


def _eager_pieces(device: KernelDevice, batch: StepBatch) -> Tensor | None:
    """Pieces of the chunks of a step that the host knows; None where there are none."""
    plan, first = batch.plan, batch.decode_rows
    assert plan is not None
    if len(plan.queries) <= first:
        return None
    pieces = device.pieces(plan.queries[first:], plan.context[first:], first)
    host = torch.from_numpy(pieces)
    if batch.slot.is_cuda:
        host = host.pin_memory()
    return host.to(batch.slot.device, non_blocking=True)
