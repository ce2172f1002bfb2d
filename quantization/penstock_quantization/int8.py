"""Whole numbers of 8 bits as they are: [outputs, inputs] int8, and scales beside them.

Of compressed-tensors (int-quantized), of bitsandbytes (LLM.int8) and of torchao. Activations keep
their precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from penstock_quantization.integers import Integers
from penstock_quantization.matrix import Slice
from penstock_quantization.tensors import Tensors
from penstock_quantization.whole import Whole


@dataclass(frozen=True, slots=True)
class Int8:
    """Names of the tensors of a matrix."""

    stored: str
    scale: str
    divisor: float = 1.0  # of what is stored as scale
    zero: str | None = None  # where the format has it
    grouped: bool = False  # whether only the scales tell how long a group is

    def read(self, part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> Integers:
        name, rows, group = part.name, part.rows, whole.group or inputs
        shape = tensors.shape(f"{name}.{self.scale}") if self.grouped else None
        if shape is not None and len(shape) == 2 and shape[1] > 1:
            group = -(-inputs // shape[1])
        groups = -(-inputs // group)
        q = tensors.read(f"{name}.{self.stored}", (part.total, inputs), torch.int8, 0, rows)
        scale = tensors.row_scales(f"{name}.{self.scale}", part, groups)
        if self.divisor != 1:
            scale = scale.float() / self.divisor
        zero = None
        if self.zero is not None and not (whole.symmetric or tensors.is_dummy):
            shape = (part.total, groups)
            zero = tensors.read(f"{name}.{self.zero}", shape, torch.int8, 0, rows).short()
        return Integers(8, q, scale, zero, group)


COMPRESSED = Int8("weight", "weight_scale", zero="weight_zero_point")
BITSANDBYTES = Int8("weight", "SCB", divisor=127.0)
TORCHAO = Int8("_weight_qdata", "_weight_scale", zero="_weight_zero_point", grouped=True)
