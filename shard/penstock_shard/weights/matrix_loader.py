"""Matrices of a checkpoint as this rank's device holds them: read, cut, quantised, stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.stacked import Stacked, UnlikeError, stack
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.joined_experts import ExpertTensor, JoinedExperts
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.online import ONLINE
from penstock_quantization.reader import reader_for
from penstock_shard.model.architecture import Architecture
from penstock_shard.model.layers import RowParallel
from penstock_shard.model.matrices import BlockMatrices
from penstock_shard.ranks.parallel import Group, Partition
from penstock_shard.weights.checkpoint import Weights
from penstock_shard.weights.fp8_rows import with_fp8_rows


@dataclass(frozen=True, slots=True)
class MatrixLoader:
    """Reads matrices of one model."""

    model: Architecture
    group: Group
    partition: Partition
    weights: Weights
    dtype: torch.dtype
    device: torch.device
    quantize: str | None
    fp8_rows: bool  # whether 4-bit weights are multiplied with rows in FP8

    def stacked(self, specs: Sequence[MatrixSpec], read: Callable[[MatrixSpec], Weight]) -> Stacked:
        """Experts' matrices, read one by one; dense where their layouts differ."""
        try:
            return stack(map(read, specs), len(specs))
        except UnlikeError:
            return stack((self._as_dense(read(spec)) for spec in specs), len(specs))

    def joined_experts(self, prefix: str) -> tuple[Stacked, Stacked]:
        """Of a layer that holds all in one tensor."""
        model, names = self.model, self.model.family.names
        matrices = BlockMatrices(model, self.partition)
        shape = model.experts
        assert shape is not None
        sizes = (shape.count, model.hidden_size, shape.inner, self.partition.expert)
        reader = JoinedExperts(model.scheme, self.weights, self.dtype, self.device)
        up = reader.up(ExpertTensor(prefix + names.expert_up[0], *sizes))
        with_bias = self.group.rank == 0  # else it would be added once a rank
        down = reader.down(ExpertTensor(prefix + names.expert_down, *sizes), with_bias)
        any_place = matrices.expert(0)
        rows, columns = matrices.up(prefix, any_place), matrices.down(prefix, any_place)
        return (
            stack((self._quantised(self._fitting(one), rows, _own) for one in up), shape.count),
            stack(
                (self._quantised(self._fitting(one), columns, self.group.maximum) for one in down),
                shape.count,
            ),
        )

    def dense(self, spec: MatrixSpec) -> Weight:
        """Unpacked, whatever the checkpoint's format is."""
        return self._as_dense(self._read(spec))

    def _as_dense(self, weight: Weight) -> Weight:
        if weight.layout is Layout.DENSE:
            return weight
        if weight.device.type == "meta":  # of which nothing is computed
            data = weight.data.new_empty((weight.n, weight.k), dtype=self.dtype)
        else:
            data = weight.dequantised().to(self.dtype)
        return Weight(data, weight.bias, fp8_rows=weight.fp8_rows)

    def columns(self, spec: MatrixSpec) -> Weight:
        """A matrix whose rows are this rank's; others read the same input on every rank."""
        return self._quantised(self._read(spec), spec, _own)

    def rows(self, spec: MatrixSpec) -> RowParallel:
        return RowParallel(self.partial(spec), self.group)

    def partial(self, spec: MatrixSpec) -> Weight:
        """A matrix of whose columns each rank has some: their products are summed."""
        weight = self._read(spec)
        if self.group.rank:  # else the bias would be added once a rank
            weight = replace(weight, bias=None)
        return self._quantised(weight, spec, self.group.maximum)

    def _read(self, spec: MatrixSpec) -> Weight:
        reader = reader_for(self.model.scheme, self.weights, self.dtype, self.device)
        weight = reader.read(spec)
        return self._fitting(with_fp8_rows(weight, spec) if self.fp8_rows else weight)

    def _fitting(self, weight: Weight) -> Weight:
        return weight if keeps_layouts(self.device) else self._as_dense(weight)

    def _quantised(
        self, weight: Weight, spec: MatrixSpec, over_ranks: Callable[[Tensor], Tensor]
    ) -> Weight:
        """As `--quantize` says, where the checkpoint is not quantised; over_ranks: see
        `penstock_quantization.online`."""
        if self.quantize is None or self.model.scheme is not None:
            return weight
        if self.device.type == "meta":  # sizes are the same whatever the numbers are
            over_ranks = _own
        quantised = ONLINE[self.quantize](weight, over_ranks, spec)
        return quantised if keeps_layouts(self.device) else self._as_dense(quantised)


def keeps_layouts(device: torch.device) -> bool:
    """Whether weights stay as they are stored. On a CPU they become the model's own type, in which
    it computes."""
    return device.type != "cpu"


def _own(largest: Tensor) -> Tensor:
    """No other rank holds a part of the rows."""
    return largest
