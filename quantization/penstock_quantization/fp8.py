"""Checkpoints in FP8 (e4m3): a scale for a tensor, for each output, or for each block of numbers.

Scales multiply, whatever their names say. Those of activations are not read: beyond 64 rows a row
is quantised with a scale of its own, which is at least as exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.fp8 import interleave
from penstock_kernels.weight import E8M0_BIAS, Layout, Weight
from penstock_quantization.dense import DenseReader
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source

LEAST = 16  # columns of a block that is cut


@dataclass(frozen=True, slots=True)
class Fp8Reader:
    """Matrices that were left in half precision are read as they are; one that is joined of both
    kinds becomes half precision."""

    scheme: Scheme
    source: Source
    dense: DenseReader

    def read(self, spec: MatrixSpec) -> Weight:
        quantised = [self._is_quantised(part) for part in spec.slices]
        if not any(quantised):
            return self.dense.read(spec)
        if spec.transposed:
            raise ValueError(
                f"tensor {spec.slices[0].name}.weight is FP8 and stored [inputs, outputs], for "
                "which no format of scales is known"
            )
        if all(quantised):
            return self._joined(spec)
        parts = [replace(spec, slices=(part,)) for part in spec.slices]
        read = [
            self._joined(part) if is_quantised else self.dense.read(part)
            for part, is_quantised in zip(parts, quantised, strict=True)
        ]
        data = torch.cat([part.dequantised().to(self.dense.dtype) for part in read])
        return Weight(data, self.dense.bias(spec))

    def _is_quantised(self, part: Slice) -> bool:
        """As the tensor is; where there is none, as the configuration says."""
        found = self.source.is_fp8(f"{part.name}.weight")
        return not self.scheme.skips(part.name) if found is None else found

    def _joined(self, spec: MatrixSpec) -> Weight:
        data = interleave(self.dense.numbers(spec, torch.float8_e4m3fn))
        bias = self.dense.bias(spec)
        if self.scheme.block is None:
            scale = torch.cat([self._row_scales(part) for part in spec.slices])
            return Weight(data, bias, Layout.FP8, scale)
        rows, columns = self._granule(spec)
        scale = torch.cat([self._block_scales(part, spec, rows, columns) for part in spec.slices])
        return Weight(data, bias, Layout.FP8_BLOCKS, scale, rows, columns)

    def _row_scales(self, part: Slice) -> Tensor:
        """[rows, 1]. In the file: one, or one for each output."""
        name = f"{part.name}.{self.scheme.scale}"
        shape = self.source.shape(name)
        if shape is not None and math.prod(shape) == 1 < part.total:
            return self._read(name, shape).view(1, 1).repeat(len(part.rows), 1)
        if shape is None or math.prod(shape) != part.total or len(shape) > 2:
            shape = (part.total, 1)  # the source says what is wrong
        scale = self._read(name, shape).view(part.total, 1)
        return scale[part.rows.start : part.rows.stop].clone()

    def _block_scales(self, part: Slice, spec: MatrixSpec, rows: int, columns: int) -> Tensor:
        """Of the blocks of [rows, columns] that a cut leaves."""
        assert self.scheme.block is not None
        tall, wide = self.scheme.block
        shape = (-(-part.total // tall), -(-spec.inputs // wide))
        scale = self._read(f"{part.name}.{self.scheme.scale}", shape)
        row = torch.arange(part.rows.start, part.rows.stop, rows, device=scale.device)
        column = torch.arange(spec.columns.start, spec.columns.stop, columns, device=scale.device)
        return scale.index_select(0, row // tall).index_select(1, column // wide)

    def _granule(self, spec: MatrixSpec) -> tuple[int, int]:
        """The largest blocks that neither the cut nor the borders of joined parts go through.

        Raises ValueError where columns are cut so that they would be too small.
        """
        assert self.scheme.block is not None
        tall, wide = self.scheme.block
        *before, last = spec.slices
        rows = math.gcd(tall, *(part.rows.start for part in spec.slices))
        rows = math.gcd(rows, *(len(part.rows) for part in before))
        columns = wide
        if spec.is_row_parallel:
            columns = math.gcd(wide, spec.columns.start, len(spec.columns))
        if columns < LEAST:
            raise ValueError(
                f"{last.name} has {spec.inputs} inputs in blocks of {wide}, which cannot be cut "
                f"into parts of {len(spec.columns)}: choose another --num-shard"
            )
        return rows, columns

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self.scheme.powers:
            power = torch.empty(shape, dtype=torch.uint8, device=self.dense.device)
            self.source.read(power, name, shape)
            return (power.float() - E8M0_BIAS).exp2()
        out = torch.empty(shape, dtype=torch.float32, device=self.dense.device)
        flat = out.view(1) if not shape else out
        self.source.read(flat, name, shape)
        return out
