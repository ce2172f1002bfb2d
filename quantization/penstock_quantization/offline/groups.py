"""Matrices as whole numbers with a scale for each group of a row, and how they are rounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-7  # scale: groups of zeros stay zeros; float16 has it


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """Rows that mean (q - zero) * scale."""

    q: Tensor  # [n, k] uint8
    scale: Tensor  # [n, groups] float16
    zero: Tensor  # [n, groups] uint8
    bits: int

    def meant(self) -> Tensor:
        """[n, k] float32."""
        n, k = self.q.shape
        groups = self.scale.shape[1]
        centred = self.q.view(n, groups, -1).float() - self.zero[..., None].float()
        return (centred * self.scale[..., None].float()).view(n, k)

    def rows(self, part: slice) -> Quantised:
        return Quantised(self.q[part], self.scale[part], self.zero[part], self.bits)

    @staticmethod
    def below(parts: list[Quantised]) -> Quantised:
        """Below one another."""
        q, scale, zero = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("q", "scale", "zero")
        )
        return Quantised(q, scale, zero, parts[0].bits)


@dataclass(frozen=True, slots=True)
class Grid:
    """The whole numbers that a format has."""

    bits: int
    group: int
    symmetric: bool

    def fit(self, weight: Tensor, share: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Scale and zero of the groups of rows, each [n, groups, 1] float32; the scale as float16
        has it. weight: [n, groups, group]; share: of the range that is kept, the rest is cut off.
        """
        most = (1 << self.bits) - 1
        if self.symmetric:
            scale = weight.abs().amax(2, keepdim=True) * share * 2 / most
            scale = scale.clamp(min=TINY).half().float()
            return scale, torch.full_like(scale, (most + 1) // 2)
        low = weight.amin(2, keepdim=True).clamp(max=0) * share
        high = weight.amax(2, keepdim=True).clamp(min=0) * share
        scale = ((high - low) / most).clamp(min=TINY).half().float()
        return scale, (-low / scale).round().clamp(0, most)

    def round(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Whole numbers, as float32. Shapes: see `fit`."""
        return (weight / scale + zero).round().clamp(0, (1 << self.bits) - 1)

    def nearest(self, weight: Tensor, share: float | Tensor = 1.0) -> Quantised:
        """Each number rounded by itself. weight: [n, k] float32."""
        n, k = weight.shape
        parts = weight.view(n, k // self.group, self.group)
        scale, zero = self.fit(parts, share)
        return self.stored(self.round(parts, scale, zero).view(n, k), scale, zero)

    def stored(self, q: Tensor, scale: Tensor, zero: Tensor) -> Quantised:
        """q: [n, k]; scale, zero: [n, groups, 1]."""
        return Quantised(q.byte(), scale[..., 0].half(), zero[..., 0].byte(), self.bits)
