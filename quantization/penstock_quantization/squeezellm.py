"""Checkpoints of SqueezeLLM (Kim et al., 2023, arXiv:2306.07629): a table of numbers for each
output, 3 or 4 bits a code.

Codes are packed along the inputs, [k * bits / 32, n], as one stream of bits, low bits first. Its
sparse part is refused: what a matrix of codes lacks then stands in other tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_quantization.lut import Coded
from penstock_quantization.matrix import Slice
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source

WORD = 32  # bits


@dataclass(frozen=True, slots=True)
class SqueezeLlm:
    """A `LutFormat`."""

    scheme: Scheme
    source: Source
    device: torch.device

    def is_quantised(self, part: Slice) -> bool:
        found = self.source.is_there(f"{part.name}.lookup_table")
        return not self.scheme.skips(part.name) if found is None else found

    def coded(self, part: Slice, inputs: int) -> Coded:
        if self.source.is_there(f"{part.name}.vals"):
            raise ValueError(
                f"{part.name} has a sparse part (rows, cols, vals), which is not served: make the "
                "checkpoint without --include_sparse"
            )
        bits, rows = self.scheme.bits, len(part.rows)
        if inputs % WORD:
            raise ValueError(f"{part.name} has {inputs} inputs, no multiple of {WORD}")
        shape = (inputs * bits // WORD, part.total)
        words = torch.empty(shape[0], rows, dtype=torch.int32, device=self.device)
        self.source.read(words, f"{part.name}.qweight", shape, 1, part.rows.start)
        table = torch.zeros(rows, 16, dtype=torch.float32, device=self.device)
        values, count = table[:, : 1 << bits], 1 << bits
        self.source.read(
            values, f"{part.name}.lookup_table", (part.total, count), 0, part.rows.start
        )
        return Coded(stream(words, bits).T.contiguous(), table=table)


def stream(words: Tensor, bits: int) -> Tensor:
    """Numbers of so many bits out of words [count, n] int32: [count * 32 / bits, n] uint8."""
    count, n = words.shape
    shifts = torch.arange(WORD, device=words.device, dtype=torch.int32)
    single = (words[:, None] >> shifts[:, None] & 1).to(torch.uint8)
    single = single.reshape(count * WORD // bits, bits, n)
    numbers = single[:, 0]
    for bit in range(1, bits):
        numbers = numbers | single[:, bit] << bit
    return numbers
