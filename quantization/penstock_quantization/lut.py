"""What formats of 4-bit codes have in common: unpacked, cut for a rank, packed again.

A format says which matrices it quantised and unpacks one (`LutFormat`); the rest is here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from penstock_kernels.lut import pack, table_of
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.dense import DenseReader
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.mixed import read_mixed

LEAST = 16  # columns of a block that is cut


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Some rows of a matrix, all of their columns, in order."""

    codes: Tensor  # [rows, k] uint8, below 16
    code: str = ""  # the table, of `kernels.lut.TABLES`
    table: Tensor | None = None  # [rows, 16] float32, where each row has its own
    scale: Tensor | None = None  # [rows, k / group]
    group: int = 1
    outer: Tensor | None = None  # [rows] float32: a scale beside the others

    def columns(self, part: range, name: str) -> Coded:
        """Raises ValueError where blocks would become too small."""
        codes = self.codes[:, part.start : part.stop]
        if self.scale is None:
            return replace(self, codes=codes)
        group = math.gcd(self.group, part.start, len(part))
        if group < min(LEAST, self.group):
            raise ValueError(
                f"{name} has {self.codes.shape[1]} inputs in blocks of {self.group}, which cannot "
                f"be cut into parts of {len(part)}: choose another --num-shard"
            )
        place = torch.arange(part.start, part.stop, group, device=codes.device) // self.group
        scale = self.scale.index_select(1, place)
        return replace(self, codes=codes, scale=scale, group=group)


class LutFormat(Protocol):
    """A checkpoint format."""

    def is_quantised(self, part: Slice) -> bool:
        """As the tensors are; where there are none, as the configuration says."""

    def coded(self, part: Slice, inputs: int) -> Coded:
        """Read. Raises ValueError with a sentence for what cannot be."""


@dataclass(frozen=True, slots=True)
class LutReader:
    """Reads matrices of a format."""

    format: LutFormat
    dense: DenseReader

    def read(self, spec: MatrixSpec) -> Weight:
        if spec.transposed and any(self.format.is_quantised(part) for part in spec.slices):
            raise ValueError(
                f"{spec.slices[0].name} is quantised and stored [inputs, outputs], which no "
                "format of 4-bit codes is known for"
            )
        return read_mixed(spec, self.format.is_quantised, self._joined, self.dense)

    def _joined(self, spec: MatrixSpec) -> Weight:
        parts = [
            self.format.coded(part, spec.inputs).columns(spec.columns, part.name)
            for part in spec.slices
        ]
        return packed(parts, self.dense.bias(spec))


def packed(parts: list[Coded], bias: Tensor | None = None) -> Weight:
    """Of rows below one another, which have one format, as devices hold them."""
    first = parts[0]
    codes = torch.cat([part.codes for part in parts])
    if codes.shape[1] % 2:
        raise ValueError(f"a matrix of {codes.shape[1]} columns cannot be packed two a byte")
    table = _below(*(part.table for part in parts))
    scale = _below(*(part.scale for part in parts))
    if table is None:
        table = table_of(first.code, codes.device)
    return Weight(
        data=pack(codes),
        bias=bias,
        layout=Layout.LUT,
        scale=None if scale is None else scale.T.contiguous(),
        scale_columns=first.group,
        table=table,
        code=first.code,
        outer=_below(*(part.outer for part in parts)),
    )


def _below(*parts: Tensor | None) -> Tensor | None:
    """Below one another; None where there are none."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    if found[0].dtype == torch.float8_e4m3fn:
        return torch.cat([part.view(torch.uint8) for part in found]).view(torch.float8_e4m3fn)
    return torch.cat(found)
