"""GPTQ (Frantar et al., 2022, arXiv:2210.17323), as AutoGPTQ and GPTQModel write it.

`qweight` [inputs * bits / 32, outputs] is packed along the inputs, `qzeros` [groups, outputs * bits
/ 32] along the outputs, both low bits first; `scales` [groups, outputs]; `g_idx` [inputs] tells the
group of each input. Bits and groups are those of the tensors: some files have other ones for some
of the matrices.

Version 1 stores zeros minus 1, and a zero of 0 borrows from its neighbours: GPTQModel subtracts and
adds whole words, so this does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_quantization.bits import WORD, unpack
from penstock_quantization.integers import Integers
from penstock_quantization.matrix import Slice
from penstock_quantization.tensors import Tensors
from penstock_quantization.whole import Whole

STORED = "qweight"
BITS = (2, 3, 4, 8)


def read(part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> Integers:
    rows, name = part.rows, part.name
    bits, group = _bits(part, inputs, whole, tensors), _group(part, inputs, whole, tensors)
    groups = -(-inputs // group)
    shape = (inputs * bits // WORD, part.total)
    words = tensors.read(f"{name}.{STORED}", shape, torch.int32, 1, rows)
    middle = 1 << (bits - 1)
    q = unpack(words.t(), bits).sub_(middle).view(torch.int8)
    scale = tensors.scales(f"{name}.scales", (groups, part.total), 1, rows)
    zero = None
    if not (whole.symmetric and tensors.is_dummy):
        packed = (groups, -(-part.total * bits // WORD))
        words = tensors.read(f"{name}.qzeros", packed, torch.int32)
        zeros = _zeros(words, bits, whole.offset)[:, rows.start : rows.stop]
        zero = zeros.short().sub_(middle).t()
    order = tensors.group_of(f"{name}.g_idx", inputs, group)
    return Integers(bits, q, scale.t(), zero, group, order)


def _bits(part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> int:
    shape = tensors.shape(f"{part.name}.{STORED}")
    if shape is None or not shape or shape[0] * WORD % inputs:
        return whole.bits
    bits = shape[0] * WORD // inputs
    return bits if bits in BITS else whole.bits


def _group(part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> int:
    shape, group = tensors.shape(f"{part.name}.scales"), whole.group or inputs
    if shape is None or not shape or shape[0] < 1 or -(-inputs // group) == shape[0]:
        return group
    return -(-inputs // shape[0])


def _zeros(words: Tensor, bits: int, offset: int) -> Tensor:
    if offset == 0:
        return unpack(words, bits)
    if WORD % bits:  # where numbers go over the ends of words each is taken for itself
        return (unpack(words, bits) + 1) & ((1 << bits) - 1)
    return unpack(words + sum(1 << shift for shift in range(0, WORD, bits)), bits)
