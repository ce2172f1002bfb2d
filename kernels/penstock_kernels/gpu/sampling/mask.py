"""Bits of the tokens that a grammar allows, as kernels read them. Reference: `mask.hide`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.draw import SamplingBatch


def tensors(draws: SamplingBatch) -> tuple[Tensor, Tensor, int]:
    """Bits, switches and words of a row for a launch; what is not read where there is no mask."""
    if draws.mask is None:
        return draws.keys, draws.keys, 1
    return draws.mask.bits, draws.mask.on, draws.mask.bits.stride(0)


@triton.jit
def hide(value, bits, on, slot, column, n, words):
    """Logits that are not allowed at -inf; NaN and infinity stay, so that they are seen."""
    word = tl.load(bits + slot * words + column // 32, mask=column < n, other=0)
    allowed = (((word >> (column % 32)) & 1) != 0) | (tl.load(on + slot) == 0)
    return tl.where(allowed | (value != value) | (value == float("inf")), value, float("-inf"))
