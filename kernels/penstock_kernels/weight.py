"""A matrix of a model as one rank's device holds it.

Checkpoints know many formats, devices few layouts: a reader turns one into the other. What else
belongs to the matrix (scales, a bias) travels with it, so no operation can forget it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels import int4
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
    # [k / scale_columns, n] float32, bfloat16, float8_e4m3fn or uint8 (e8m0: the power of two, plus
    # 127), outer [n] float32, or neither
    LUT = "lut"
    # [n, k] int8, columns as `fp8.interleave` has them; scale [n, ceil(k / scale_columns)]
    INT8 = "int8"
    # tiles of `int4`, scale as `int4.pack_scales` has it, of groups of scale_columns
    INT4 = "int4"


E8M0_BIAS = 127
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
    zero: Tensor | None = None  # of whole numbers, as `scale`: what stands for 0; None: 0
    # [columns] int64: the input that each column multiplies, where they are not in order; columns
    # that fill groups up are zeros of any input.
    order: Tensor | None = None
    shape: tuple[int, int] | None = None  # n and k, where `data` does not say it
    # Whether it is multiplied with rows in FP8, each with a scale of its own: on a GPU those of
    # steps of many rows.
    fp8_rows: bool = False

    @property
    def n(self) -> int:
        """Outputs."""
        return self.data.shape[0] if self.shape is None else self.shape[0]

    @property
    def k(self) -> int:
        """Inputs."""
        if self.shape is not None:
            return self.shape[1]
        return self.data.shape[1] * _PACKED.get(self.layout, 1)

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def has_row_scales(self) -> bool:
        """Whether numbers of 8 bits have a scale for each row."""
        if self.layout is Layout.INT8:
            return self.scale is not None and self.scale.shape[1] == 1
        return self.layout is Layout.FP8

    def dequantised(self) -> Tensor:
        """The matrix [n, k] itself: as stored where it is dense, else in float32."""
        if self.layout is Layout.LUT:
            return self._looked_up()
        if self.scale is None:
            return self.data
        matrix = _NUMBERS[self.layout](self)
        if self.order is None:
            return matrix
        return matrix.new_zeros(self.n, self.k).index_add_(1, self.order, matrix)

    def _looked_up(self) -> Tensor:
        assert self.table is not None
        numbers = looked_up(unpack(self.data), self.table)
        if self.scale is not None:
            numbers *= _scales(self.scale).T.repeat_interleave(self.scale_columns, 1)
        return numbers if self.outer is None else numbers.mul_(self.outer[:, None])

    def tensors(self) -> Iterator[Tensor]:
        """Everything that takes memory."""
        yield from (
            part
            for part in (
                self.data, self.scale, self.bias, self.table, self.outer, self.zero, self.order,
            )
            if part is not None
        )  # fmt: skip


def _scales(scale: Tensor) -> Tensor:
    """In float32."""
    return (scale.float() - E8M0_BIAS).exp2() if scale.dtype == torch.uint8 else scale.float()


def _fp8(weight: Weight) -> Tensor:
    return in_order(weight.data.float()).mul_(_wide(weight, weight.scale))


def _int8(weight: Weight) -> Tensor:
    numbers = in_order(weight.data.float())
    if weight.zero is not None:
        numbers -= _wide(weight, weight.zero)
    return numbers.mul_(_wide(weight, weight.scale))


def _int4(weight: Weight) -> Tensor:
    scale, group = weight.scale, weight.scale_columns
    assert scale is not None
    numbers = int4.unpack(weight.data).float()
    numbers = numbers.view(len(numbers), -1, group)  # of each group
    if weight.zero is not None:
        numbers -= int4.unpack_scales(weight.zero).float().unsqueeze(2)
    numbers *= int4.unpack_scales(scale).float().unsqueeze(2)
    k = weight.k if weight.order is None else len(weight.order)
    return numbers.flatten(1)[: weight.n, :k].contiguous()


def _wide(weight: Weight, scale: Tensor | None) -> Tensor:
    """A scale for each number."""
    assert scale is not None
    n, k = weight.data.shape
    if scale.shape[1] > 1 or weight.scale_columns > 1:
        scale = scale.repeat_interleave(weight.scale_columns, 1)[:, :k]
    return scale.repeat_interleave(weight.scale_rows, 0)[:n]


_NUMBERS: dict[Layout, Callable[[Weight], Tensor]] = {  # of layouts with a scale, in float32
    Layout.FP8: _fp8,
    Layout.FP8_BLOCKS: _fp8,
    Layout.INT8: _int8,
    Layout.INT4: _int4,
}
