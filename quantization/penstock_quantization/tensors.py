"""Tensors of a matrix beside its numbers, read whole or in part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_quantization.matrix import Slice
from penstock_quantization.source import Source


@dataclass(frozen=True, slots=True)
class Tensors:
    """Of a source, on a device."""

    source: Source
    device: torch.device

    @property
    def is_dummy(self) -> bool:
        """Whether any tensor is there, of random numbers."""
        return self.source.is_there("") is None

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.source.shape(name)

    def read(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, dim: int = 0,
        part: range | None = None,
    ) -> Tensor:  # fmt: skip
        """`part` of dimension `dim`; shape: of the whole tensor."""
        local = list(shape)
        if part is not None:
            local[dim] = len(part)
        out = torch.empty(local, dtype=dtype, device=self.device)
        self.source.read(out, name, shape, dim, part.start if part is not None else 0)
        return out

    def scales(
        self, name: str, shape: tuple[int, ...], dim: int = 0, part: range | None = None
    ) -> Tensor:
        """In the type that they are stored in."""
        stored = self.source.stored(name)
        half = stored if stored in (torch.float16, torch.bfloat16) else torch.float32
        return self.read(name, shape, torch.float16 if stored is None else half, dim, part)

    def row_scales(self, name: str, part: Slice, groups: int) -> Tensor:
        """[rows, groups]. In the file: one a group, or one for each output, or one in all."""
        shape = self.shape(name)
        if groups == 1 and shape is not None and len(shape) <= 2 and math.prod(shape) == 1:
            return self.scales(name, shape).view(1, 1).repeat(len(part.rows), 1)
        if groups == 1 and shape == (part.total,):
            return self.scales(name, shape, 0, part.rows).view(-1, 1)
        return self.scales(name, (part.total, groups), 0, part.rows)

    def group_of(self, name: str, inputs: int, group: int) -> Tensor | None:
        """The group of each input, where there is such a tensor and they do not simply follow one
        another."""
        if self.shape(name) is None:
            return None
        found = self.read(name, (inputs,), torch.int32)
        if found.is_meta:
            return None
        groups = -(-inputs // group)
        if not (int(found.min()) >= 0 and int(found.max()) < groups):
            raise ValueError(f"tensor {name} names groups beyond the {groups} that there are")
        plain = torch.arange(inputs, device=found.device) // group
        return None if torch.equal(found, plain) else found.long()
