"""compressed-tensors, `format: pack-quantized`: W4A16, W8A16 and their like.

`weight_packed` [outputs, inputs * bits / 32] is packed along the inputs, low bits first, each
number plus 2^(bits - 1); `weight_scale` [outputs, groups]; asymmetric ones have `weight_zero_point`
[outputs * bits / 32, groups], packed along the outputs; those with actorder `weight_g_idx`.
"""

from __future__ import annotations

import torch

from penstock_quantization.bits import WORD, unpack
from penstock_quantization.integers import Integers
from penstock_quantization.matrix import Slice
from penstock_quantization.tensors import Tensors
from penstock_quantization.whole import Whole

STORED = "weight_packed"


def read(part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> Integers:
    bits, rows, name = whole.bits, part.rows, part.name
    group = whole.group or inputs
    groups, middle = -(-inputs // group), 1 << (bits - 1)
    shape = (part.total, _words(inputs, bits))
    words = tensors.read(f"{name}.{STORED}", shape, torch.int32, 0, rows)
    q = unpack(words, bits)[:, :inputs].contiguous().sub_(middle).view(torch.int8)
    scale = tensors.row_scales(f"{name}.weight_scale", part, groups)
    zero = None
    if not whole.symmetric:
        packed = (_words(part.total, bits), groups)
        words = tensors.read(f"{name}.weight_zero_point", packed, torch.int32)
        zero = unpack(words.t(), bits).t()[rows.start : rows.stop].to(torch.int16).sub_(middle)
    order = tensors.group_of(f"{name}.weight_g_idx", inputs, group)
    return Integers(bits, q, scale, zero, group, order)


def _words(numbers: int, bits: int) -> int:
    """That hold so many numbers, the last of them filled up."""
    return -(-numbers * bits // WORD)
