"""Matrices in float32, float16 or bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.weight import Weight
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.source import Source


@dataclass(frozen=True, slots=True)
class DenseReader:
    """Rounds to one type."""

    source: Source
    dtype: torch.dtype
    device: torch.device

    def read(self, spec: MatrixSpec) -> Weight:
        return Weight(self.numbers(spec, self.dtype), self.bias(spec))

    def numbers(self, spec: MatrixSpec, dtype: torch.dtype) -> Tensor:
        """The stored numbers of `weight`: [outputs, columns]."""
        out = torch.empty(spec.outputs, len(spec.columns), dtype=dtype, device=self.device)
        dim, row = int(spec.is_row_parallel), 0
        for part in spec.slices:
            into, shape = out.narrow(0, row, len(part.rows)), (part.total, spec.inputs)
            first = spec.columns.start if spec.is_row_parallel else part.rows.start
            if spec.transposed:
                into, shape = into.t(), (shape[1], shape[0])
            self.source.read(into, f"{part.name}.weight", shape, dim ^ spec.transposed, first)
            row += len(part.rows)
        return out

    def bias(self, spec: MatrixSpec) -> Tensor | None:
        """[outputs]."""
        if not spec.bias:
            return None
        out, row = torch.empty(spec.outputs, dtype=self.dtype, device=self.device), 0
        for part in spec.slices:
            into = out.narrow(0, row, len(part.rows))
            self.source.read(into, f"{part.name}.bias", (part.total,), 0, part.rows.start)
            row += len(part.rows)
        return out
