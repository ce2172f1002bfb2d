"""Half-precision weights that are quantised when they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from penstock_kernels.fp8 import SMALLEST, interleave, quantise, scale_of
from penstock_kernels.weight import Layout, Weight
from penstock_quantization import bitsandbytes
from penstock_quantization.integers import Integers, pack
from penstock_quantization.matrix import MatrixSpec

OverRanks = Callable[[Tensor], Tensor]


def fp8(weight: Weight, over_ranks: OverRanks, spec: MatrixSpec | None = None) -> Weight:
    """A dense weight in e4m3, with a scale for each output.

    The scale is that of the whole matrix's row, so that one rank and several hold the same numbers:
    over_ranks returns the largest of a tensor's values over the ranks that share the row.
    """
    largest = over_ranks(weight.data.abs().amax(dim=1, keepdim=True).float())
    scale = scale_of(largest)
    data = interleave(quantise(weight.data, scale))
    return Weight(data, weight.bias, Layout.FP8, scale)


def int8(weight: Weight, over_ranks: OverRanks, spec: MatrixSpec | None = None) -> Weight:
    """A dense weight in whole numbers of 8 bits, with a scale for each output of the whole matrix:
    what LLM.int8 and EETQ make of it."""
    largest = over_ranks(weight.data.abs().amax(dim=1, keepdim=True).float())
    scale = (largest / 127).clamp_(min=SMALLEST)
    q = (weight.data.float() / scale).round_().clamp_(-127, 127).to(torch.int8)
    return pack(Integers(8, q, scale, None, q.shape[1]), weight.bias, None, q.shape[1])


# By the name of `--quantize`; spec: which part of a matrix the weight is.
ONLINE: dict[str, Callable[[Weight, OverRanks, MatrixSpec | None], Weight]] = {
    "fp8": fp8,
    "bitsandbytes": int8,
    "eetq": int8,
    "bitsandbytes-nf4": partial(bitsandbytes.quantised, "nf4"),
    "bitsandbytes-fp4": partial(bitsandbytes.quantised, "fp4"),
}
