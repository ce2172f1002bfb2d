"""Checkpoints of bitsandbytes in 4 bits (nf4, fp4), and half-precision weights made such at load.

A matrix is one row of numbers, row after row of it, in blocks of 64 with a scale each; two codes a
byte, the first one high. With double quantisation the scales are 8-bit codes themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.lut import TABLES, nearest
from penstock_kernels.weight import Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source

BLOCK = 64
NESTED_BLOCK = 256  # scales that share a scale
ROWS = 4096  # quantised at a time: what that takes in between is some times the matrix
TINY = 1e-30  # scale: blocks of zeros stay zeros
LONGEST_STATE = 4096  # bytes of JSON


@dataclass(frozen=True, slots=True)
class BitsAndBytes:
    """A `LutFormat`."""

    scheme: Scheme
    source: Source
    device: torch.device

    def is_quantised(self, part: Slice) -> bool:
        found = self.source.is_there(f"{part.name}.weight.absmax")
        return not self.scheme.skips(part.name) if found is None else found

    def coded(self, part: Slice, inputs: int) -> Coded:
        if inputs % 2:
            raise ValueError(f"{part.name} has {inputs} inputs; packed two a byte they are even")
        rows, count = len(part.rows), part.total * inputs
        data = self._empty((rows * inputs // 2, 1), torch.uint8)
        shape = (count // 2, 1)
        self.source.read(data, f"{part.name}.weight", shape, 0, part.rows.start * inputs // 2)
        data = data.view(rows, inputs // 2)
        codes = torch.stack((data >> 4, data & 15), dim=2).flatten(1)
        state = self._state(part.name, (part.total, inputs))
        block = state["blocksize"]
        # Rows need not begin with a block: this many numbers are always within one.
        group = math.gcd(block, inputs)
        place = torch.arange(rows * inputs // group, device=self.device) * group
        place = (place + part.rows.start * inputs) // block
        scale = self._scales(part.name, -(-count // block), state)[place]
        return Coded(codes, state["quant_type"], scale=scale.view(rows, -1), group=group)

    def _scales(self, name: str, blocks: int, state: dict[str, Any]) -> Tensor:
        """[blocks] float32."""
        name = f"{name}.weight"
        if not self._is_nested(name):
            return self._floats(f"{name}.absmax", (blocks,))
        size = state.get("nested_blocksize", NESTED_BLOCK)
        codes = self._empty((blocks,), torch.uint8)
        self.source.read(codes, f"{name}.absmax", (blocks,))
        scale = self._floats(f"{name}.nested_absmax", (-(-blocks // size),))
        values = self._floats(f"{name}.nested_quant_map", (256,))
        place = torch.arange(blocks, device=self.device) // size
        scale = values[codes.long()] * scale[place]
        return scale.add_(state.get("nested_offset", 0.04))

    def _is_nested(self, name: str) -> bool:
        found = self.source.is_there(f"{name}.nested_absmax")
        return self.scheme.nested if found is None else found

    def _state(self, name: str, shape: tuple[int, int]) -> dict[str, Any]:
        """`quant_state` of a matrix. Raises ValueError where it contradicts the rest."""
        kind, name = self.scheme.code, f"{name}.weight"
        expected: dict[str, Any] = {"quant_type": kind, "blocksize": BLOCK, "shape": list(shape)}
        path = f"{name}.quant_state.bitsandbytes__{kind}"
        length = self.source.shape(path)
        table = self._floats(f"{name}.quant_map", (16,))
        if length is None or len(length) != 1 or not 0 < length[0] <= LONGEST_STATE:
            if self.source.is_there(path) is not None:
                length = (1,)  # the source says what is wrong
            else:
                return expected
        data = torch.empty(length, dtype=torch.uint8)
        self.source.read(data, path, length)
        if self.device.type == "meta":  # nothing was read
            return expected
        try:
            state = json.loads(bytes(data.tolist()))
        except ValueError:
            raise ValueError(f"tensor {path} is no JSON") from None
        if not isinstance(state, dict):
            raise ValueError(f"tensor {path} is no JSON object")
        for key in ("quant_type", "shape"):
            if state.get(key) != expected[key]:
                raise ValueError(f"tensor {path}: {key} is {state.get(key)!r}, not {expected[key]}")
        for key, value in (("blocksize", None), ("nested_blocksize", NESTED_BLOCK)):
            size = state.get(key, value)
            if type(size) is not int or not 32 <= size <= 4096 or size & (size - 1):
                raise ValueError(f"tensor {path}: {key} {size!r} is no power of two from 32 on")
        offset = state.get("nested_offset", 0.0)
        if type(offset) not in (int, float) or not math.isfinite(offset):
            raise ValueError(f"tensor {path}: nested_offset {offset!r} is no number")
        if not torch.equal(table.cpu(), torch.tensor(TABLES[kind])):
            raise ValueError(f"tensor {name}.quant_map is not the table of {kind}")
        return state

    def _floats(self, name: str, shape: tuple[int, ...]) -> Tensor:
        out = self._empty(shape, torch.float32)
        self.source.read(out, name, shape)
        return out

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)


def quantised(
    code: str, weight: Weight, over_ranks: Callable[[Tensor], Tensor], spec: MatrixSpec | None
) -> Weight:
    """A dense weight in nf4 or fp4, with a scale for each 64 numbers of a row.

    Blocks are those of the whole matrix's row, whatever part of it a rank holds. For over_ranks see
    `penstock_quantization.online`; spec: of the weight, None for a whole matrix.
    """
    n, k = weight.data.shape
    columns, inputs = (range(k), k) if spec is None else (spec.columns, spec.inputs)
    place = torch.arange(columns.start, columns.stop, device=weight.device) // BLOCK
    first, last = columns.start // BLOCK, -(-columns.stop // BLOCK)
    whole = F.pad(weight.data, (columns.start % BLOCK, -columns.stop % BLOCK))
    largest = whole.new_zeros(n, -(-inputs // BLOCK), dtype=torch.float32)
    largest[:, first:last] = whole.view(n, -1, BLOCK).abs().amax(2)
    largest = over_ranks(largest)
    group = math.gcd(BLOCK, columns.start, k)
    codes = [
        nearest(weight.data[i : i + ROWS].float() / scale.clamp(min=TINY)[:, place], code)
        for i, scale in zip(range(0, n, ROWS), torch.split(largest, ROWS), strict=True)
    ]
    coded = Coded(torch.cat(codes), code, scale=largest[:, place[::group]], group=group)
    return packed([coded], weight.bias)
