"""A matrix of a model as one rank's device holds it.

Checkpoints know many formats, devices few layouts: a reader turns one into the other. What else
belongs to the matrix (scales, a bias) travels with it, so no operation can forget it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.fp8 import in_order
from penstock_kernels.lut import looked_up, unpack


class Layout(enum.Enum):
    """How the numbers of a matrix are stored. Kernels know these and nothing else of a format."""

    DENSE = "dense"  # [n, k] float32, float16 or bfloat16
    # [n, k] float8_e4m3fn, columns as `fp8.interleave` has them; scale [n, 1] float32
    FP8 = "fp8"
    # the same, but scale [ceil(n / scale_rows), ceil(k / scale_columns)]
    FP8_BLOCKS = "fp8_blocks"
    # [n, k / 2] uint8 as `lut.pack` has them; table [1, 16] or [n, 16] float32; scale
    # [k / scale_columns, n] float32, bfloat16 or float8_e4m3fn, outer [n] float32, or neither
    LUT = "lut"


_PACKED = {Layout.LUT: 2}  # numbers in an element of data


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A matrix [n, k]: n outputs of k inputs each. `dequantised` says what it means."""

    data: Tensor
    bias: Tensor | None = None  # [n], of the model's type
    layout: Layout = Layout.DENSE
    scale: Tensor | None = None  # as the layout says
    scale_rows: int = 1  # of a block
    scale_columns: int = 1
    table: Tensor | None = None
    code: str = ""  # of `lut.TABLES`, which the table is; "": another
    outer: Tensor | None = None  # scales of rows beside those of blocks

    @property
    def n(self) -> int:
        """Outputs."""
        return self.data.shape[0]

    @property
    def k(self) -> int:
        """Inputs."""
        return self.data.shape[1] * _PACKED.get(self.layout, 1)

    @property
    def device(self) -> torch.device:
        return self.data.device

    def dequantised(self) -> Tensor:
        """The matrix [n, k] itself: as stored where it is dense, else in float32."""
        if self.layout is Layout.LUT:
            return self._looked_up()
        if self.scale is None:
            return self.data
        scale = self.scale
        if self.layout is Layout.FP8_BLOCKS:
            scale = scale.repeat_interleave(self.scale_columns, 1)[:, : self.k]
            scale = scale.repeat_interleave(self.scale_rows, 0)[: self.n]
        return in_order(self.data.float()).mul_(scale)

    def _looked_up(self) -> Tensor:
        assert self.table is not None
        numbers = looked_up(unpack(self.data), self.table)
        if self.scale is not None:
            numbers *= self.scale.float().T.repeat_interleave(self.scale_columns, 1)
        return numbers if self.outer is None else numbers.mul_(self.outer[:, None])

    def tensors(self) -> Iterator[Tensor]:
        """Everything that takes memory."""
        parts = (self.data, self.scale, self.bias, self.table, self.outer)
        yield from (part for part in parts if part is not None)
