"""Experts of a layer that stand in one tensor, as gpt-oss has them: in half precision or MXFP4.

    gate_up_proj         [experts, inputs, 2 * inner], outputs of gate and up by turns
    gate_up_proj_blocks  [experts, 2 * inner, inputs / 32, 16] uint8, beside _scales
    down_proj            [experts, inner, outputs]
    down_proj_blocks     [experts, outputs, inner / 32, 16] uint8, beside _scales

and biases, [experts, outputs], behind `_bias`. The blocks are those of `fp4`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.weight import Weight
from penstock_quantization.fp4 import NAMES, codes_of, power_scales
from penstock_quantization.lut import Coded, packed
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source

_FORMAT = NAMES["mxfp4"]


@dataclass(frozen=True, slots=True)
class ExpertTensor:
    """A tensor of experts, and this rank's part of what is between their two layers."""

    name: str
    count: int  # experts
    hidden: int
    inner: int
    part: range


@dataclass(frozen=True, slots=True)
class JoinedExperts:
    """Reads experts one after the other; scheme None: nothing is quantised."""

    scheme: Scheme | None
    source: Source
    dtype: torch.dtype  # of weights that are not quantised, and of biases
    device: torch.device

    def up(self, tensor: ExpertTensor) -> Iterator[Weight]:
        """Of each expert this rank's rows of the gate, then those of up."""
        first, rows = 2 * tensor.part.start, 2 * len(tensor.part)
        sizes = (tensor.count, 2 * tensor.inner)
        bias = self._read(f"{tensor.name}_bias", sizes, self.dtype, 1, first, rows)
        for index, weight in enumerate(self._rows(tensor, first, rows)):
            yield replace(weight, bias=_apart(bias[index]))

    def down(self, tensor: ExpertTensor, with_bias: bool) -> Iterator[Weight]:
        """Of each expert this rank's columns. with_bias: whether this rank's sum carries it."""
        sizes = (tensor.count, tensor.hidden)
        bias = self._read(f"{tensor.name}_bias", sizes, self.dtype, 1, 0, tensor.hidden)
        for index, weight in enumerate(self._columns(tensor)):
            yield replace(weight, bias=bias[index]) if with_bias else weight

    def _rows(self, tensor: ExpertTensor, first: int, rows: int) -> Iterator[Weight]:
        if not self._is_quantised(tensor):
            shape = (tensor.count, tensor.hidden, 2 * tensor.inner)
            for part in self._read(tensor.name, shape, self.dtype, 2, first, rows):
                yield Weight(_apart(part.t()))
            return
        outer, groups = (tensor.count, 2 * tensor.inner), _groups(tensor.name, tensor.hidden)
        data, scale = self._coded(tensor.name, outer, groups, 1, first, rows)
        for blocks, scales in zip(data, scale, strict=True):
            yield _packed(_apart(blocks), _apart(scales))

    def _columns(self, tensor: ExpertTensor) -> Iterator[Weight]:
        part = tensor.part
        if not self._is_quantised(tensor):
            shape = (tensor.count, tensor.inner, tensor.hidden)
            for columns in self._read(tensor.name, shape, self.dtype, 1, part.start, len(part)):
                yield Weight(columns.t().contiguous())
            return
        outer, groups = (tensor.count, tensor.hidden), _groups(tensor.name, tensor.inner)
        size = _FORMAT.group
        first, end = part.start // size, -(-part.stop // size)
        data, scale = self._coded(tensor.name, outer, groups, 2, first, end - first)
        own = range(part.start - first * size, part.stop - first * size)
        for blocks, scales in zip(data, scale, strict=True):
            yield _packed(blocks, scales, own, tensor.name)

    def _is_quantised(self, tensor: ExpertTensor) -> bool:
        found = self.source.is_there(tensor.name + _FORMAT.scale)
        if found is None:
            return self.scheme is not None and not self.scheme.skips(tensor.name)
        return found

    def _coded(
        self, name: str, outer: tuple[int, int], groups: int, dim: int, first: int, length: int
    ) -> tuple[Tensor, Tensor]:
        """Blocks and scales of all experts, a part of dimension `dim`."""
        shape, byte = (*outer, groups), torch.uint8
        wide = (*shape, _FORMAT.group // 2)
        data = self._read(name + _FORMAT.data, wide, byte, dim, first, length)
        return data, self._read(name + _FORMAT.scale, shape, byte, dim, first, length)

    def _read(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, dim: int, first: int,
        length: int,
    ) -> Tensor:  # fmt: skip
        local = (*shape[:dim], length, *shape[dim + 1 :])
        out = torch.empty(local, dtype=dtype, device=self.device)
        self.source.read(out, name, shape, dim, first)
        return out


def _packed(blocks: Tensor, scales: Tensor, part: range | None = None, name: str = "") -> Weight:
    """blocks: [rows, groups, 16]; part: of the columns."""
    coded = Coded(
        codes_of(blocks.flatten(1)), "e2m1", scale=power_scales(scales), group=_FORMAT.group
    )
    return packed([coded if part is None else coded.columns(part, name)])


def _apart(rows: Tensor) -> Tensor:
    """Rows of gate and up by turns as those of the gate, then those of up."""
    return torch.cat((rows[::2], rows[1::2]))


def _groups(name: str, inputs: int) -> int:
    if inputs % _FORMAT.group:
        raise ValueError(f"{name} has {inputs} inputs, no multiple of {_FORMAT.group}")
    return inputs // _FORMAT.group
