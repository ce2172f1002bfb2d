"""AWQ (Lin et al., 2023, arXiv:2306.00978), as AutoAWQ writes it for its product called GEMM.

`qweight` [inputs, outputs / 8] and `qzeros` [groups, outputs / 8] are packed along the outputs, the
eight of a word in the order ORDER, low bits first; `scales` [groups, outputs].
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
BITS, MIDDLE = 4, 8
PACK = WORD // BITS
ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where in a word each of eight outputs stands


def read(part: Slice, inputs: int, whole: Whole, tensors: Tensors) -> Integers:
    group = whole.group or inputs
    groups, rows = -(-inputs // group), part.rows
    first, last = rows.start // PACK, -(-rows.stop // PACK)  # words that hold the rows
    within = slice(rows.start - first * PACK, rows.stop - first * PACK)

    def numbers(name: str, length: int) -> Tensor:
        shape = (length, part.total // PACK)
        words = tensors.read(f"{part.name}.{name}", shape, torch.int32, 1, range(first, last))
        order = torch.tensor(ORDER, device=words.device)
        eights = unpack(words, BITS).view(length, -1, PACK).index_select(2, order)
        return eights.view(length, -1)[:, within].t()

    scale = tensors.scales(f"{part.name}.scales", (groups, part.total), 1, rows)
    q = numbers(STORED, inputs).contiguous().sub_(MIDDLE).view(torch.int8)
    zero = numbers("qzeros", groups).to(torch.int16).sub_(MIDDLE)
    return Integers(BITS, q, scale.t(), zero, group)
