"""Matrices of one shape and one layout behind one another: those of a layer's experts.

Each is laid out as it would be alone (`penstock_kernels.weight`), so kernels read one of them at an
offset. What differs is scales that are powers of two, as MXFP4 has them: they take a byte (e8m0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.weight import Layout, Weight

# Of a weight, what has a leading dimension here. A table for all rows stays one.
_STACKED = ("data", "bias", "scale", "outer", "zero", "order")
_KIND = ("layout", "scale_rows", "scale_columns", "code", "n", "k")


class UnlikeError(ValueError):
    """Matrices that no stack holds: their layouts differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """`parts` is one of the matrices but for its tensors: those of all, [count, …]."""

    parts: Weight

    @property
    def count(self) -> int:
        return self.parts.data.shape[0]

    @property
    def n(self) -> int:
        """Outputs of each."""
        return self.parts.n

    @property
    def k(self) -> int:
        """Inputs of each."""
        return self.parts.k

    @property
    def columns(self) -> int:
        """Stored of each: more than inputs where groups are filled up."""
        return self.k if self.parts.order is None else self.parts.order.shape[1]

    @property
    def layout(self) -> Layout:
        return self.parts.layout

    def __getitem__(self, index: int) -> Weight:
        """One of them; a view."""
        own: dict[str, Any] = {name: _at(getattr(self.parts, name), index) for name in _STACKED}
        table = self.parts.table
        return replace(self.parts, **own, table=_at(table, index) if self.has_tables else table)

    @property
    def has_tables(self) -> bool:
        """Whether each row of each matrix has a table of its own: [count, n, 16]."""
        return self.parts.table is not None and self.parts.table.dim() == 3

    def tensors(self) -> Iterator[Tensor]:
        """Everything that takes memory."""
        yield from self.parts.tensors()

    @staticmethod
    def dense(data: Tensor, bias: Tensor | None = None) -> Stacked:
        """data: [count, n, k]; bias: [count, n]."""
        return Stacked(Weight(data, bias, shape=(data.shape[1], data.shape[2])))


def stack(weights: Iterable[Weight], count: int) -> Stacked:
    """`count` matrices, each read when the one before it has been copied.

    Raises UnlikeError where they have different layouts, or groups.
    """
    into: dict[str, Tensor] = {}
    first: Weight | None = None
    for index, weight in enumerate(weights):
        weight = _in_bytes(weight)
        first = first or weight
        if any(getattr(first, name) != getattr(weight, name) for name in _KIND):
            raise UnlikeError(f"matrices of {first.layout.value} and {weight.layout.value}")
        tensors = _tensors_of(weight)
        if index and (odd := (into.keys() ^ tensors.keys()) - {"zero"}):
            raise UnlikeError(f"matrices with and without {', '.join(sorted(odd))}")
        for name, part in tensors.items():
            into[name] = _room(into.get(name), part, count, weight.layout)
            _copy(into[name][index], part)
    assert first is not None
    own: dict[str, Any] = {field.name: getattr(first, field.name) for field in fields(first)}
    return Stacked(Weight(**(own | into | {"shape": (first.n, first.k)})))


def _at(parts: Tensor | None, index: int) -> Tensor | None:
    return None if parts is None else parts[index]


def _tensors_of(weight: Weight) -> dict[str, Tensor]:
    found = {name: getattr(weight, name) for name in _STACKED}
    if weight.table is not None and len(weight.table) > 1:
        found["table"] = weight.table
    return {name: part for name, part in found.items() if part is not None}


def _room(have: Tensor | None, part: Tensor, count: int, layout: Layout) -> Tensor:
    """For all, of zeros (those without any before have no others). It grows where this one is
    larger: columns in the order of their groups may be filled up by different numbers of them, and
    those of scale 0 change nothing."""
    if have is None:
        return torch.zeros(count, *part.shape, dtype=part.dtype, device=part.device)
    more = [max(0, size - old) for size, old in zip(part.shape, have.shape[1:], strict=True)]
    if (any(more) or part.shape != have.shape[1:]) and layout is not Layout.INT4:
        raise UnlikeError("matrices of different columns")
    if not any(more):
        return have
    return F.pad(have, [side for size in reversed(more) for side in (0, size)])


def _copy(into: Tensor, part: Tensor) -> None:
    for dim, size in enumerate(part.shape):
        into.narrow(dim, size, into.shape[dim] - size).zero_()
        into = into.narrow(dim, 0, size)
    into.copy_(part)


def _in_bytes(weight: Weight) -> Weight:
    """Scales that are powers of two by their exponents alone."""
    scale = weight.scale
    if weight.code != "e2m1" or scale is None or scale.dtype != torch.bfloat16:
        return weight
    return replace(weight, scale=(scale.view(torch.int16) >> 7).to(torch.uint8))
