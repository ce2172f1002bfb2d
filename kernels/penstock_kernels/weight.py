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


class Layout(enum.Enum):
    """How the numbers of a matrix are stored. Kernels know these and nothing else of a format."""

    DENSE = "dense"  # [n, k] float32, float16 or bfloat16
    # [n, k] float8_e4m3fn, columns as `fp8.interleave` has them; scale [n, 1] float32
    FP8 = "fp8"
    # the same, but scale [ceil(n / scale_rows), ceil(k / scale_columns)]
    FP8_BLOCKS = "fp8_blocks"


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A matrix [n, k]: n outputs of k inputs each. `dequantised` says what it means."""

    data: Tensor
    bias: Tensor | None = None  # [n], of the model's type
    layout: Layout = Layout.DENSE
    scale: Tensor | None = None  # as the layout says
    scale_rows: int = 1  # of a block
    scale_columns: int = 1

    @property
    def n(self) -> int:
        """Outputs."""
        return self.data.shape[0]

    @property
    def k(self) -> int:
        """Inputs."""
        return self.data.shape[1]

    @property
    def device(self) -> torch.device:
        return self.data.device

    def dequantised(self) -> Tensor:
        """The matrix [n, k] itself: as stored where it is dense, else in float32."""
        if self.scale is None:
            return self.data
        scale = self.scale
        if self.layout is Layout.FP8_BLOCKS:
            scale = scale.repeat_interleave(self.scale_columns, 1)[:, : self.k]
            scale = scale.repeat_interleave(self.scale_rows, 0)[: self.n]
        return in_order(self.data.float()).mul_(scale)

    def tensors(self) -> Iterator[Tensor]:
        """Everything that takes memory."""
        yield from (part for part in (self.data, self.scale, self.bias) if part is not None)
