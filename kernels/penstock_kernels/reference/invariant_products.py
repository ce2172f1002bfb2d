"""Products, on a CPU, in which a row's result does not depend on the rows beside it.

A library sums over k in an order of its own, which may change with the number of rows. So rows are
multiplied in blocks of a few fixed sizes, filled up with zeros. Which sizes those are is found out
by a trial on the machine itself, for every shape of a matrix: a block of equal rows must give equal
rows, in all of its places, and all sizes must give the same. Sizes that do not agree are not used;
one row at a time is left in the worst case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (256, 64, 16, 4, 1)  # rows of a block
DISTINCT = 64  # rows of a matrix that is tried: of a large one the rest are the same again


@dataclass(frozen=True, slots=True)
class Shape:
    """What a library may choose an order by, beside the number of rows."""

    batch: int | None  # matrices, None: one
    n: int
    k: int
    dtype: torch.dtype
    by_rows: bool  # rows of the matrix, not its columns, stand together in memory
    biased: bool

    @staticmethod
    def of(matrix: Tensor, bias: Tensor | None) -> Shape:
        *batch, n, k = matrix.shape
        by_rows = matrix.stride(-1) == 1
        return Shape(batch[0] if batch else None, n, k, matrix.dtype, by_rows, bias is not None)


class InvariantProducts:
    """x M^T + b of any number of rows."""

    def __init__(self) -> None:
        self._sizes: dict[Shape, tuple[int, ...]] = {}  # that agree, descending

    def __call__(self, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """x: [rows, k] or [batch, rows, k]; matrix: [n, k] or [batch, n, k], and no larger stride
        than that in memory; bias: [n]. Returns [rows, n] or [batch, rows, n]."""
        shape = Shape.of(matrix, bias)
        if shape not in self._sizes:
            self._sizes[shape] = agreeing_sizes(shape)
        rows, done, parts = x.shape[-2], 0, []
        while done < rows:
            size = block_size(rows - done, self._sizes[shape])
            real = min(size, rows - done)
            # A block of its own, since libraries may also choose by where memory begins.
            block = x.new_zeros(*x.shape[:-2], size, x.shape[-1])
            block[..., :real, :] = x[..., done : done + real, :]
            parts.append(multiplied(block, matrix, bias)[..., :real, :])
            done += real
        if not parts:
            return x.new_empty(*x.shape[:-1], matrix.shape[-2])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def multiplied(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x M^T + b, as the library does it."""
    if matrix.dim() == 3:
        return torch.bmm(x, matrix.transpose(1, 2))
    return F.linear(x, matrix, bias)


def block_size(rows: int, sizes: tuple[int, ...]) -> int:
    """The size of the next block. sizes: descending. A block is at least half full, or the smallest
    there is."""
    for size in sizes:
        if 2 * rows > size:
            return size
    return sizes[-1]


def agreeing_sizes(shape: Shape) -> tuple[int, ...]:
    """The sizes whose blocks give a row the same result in every place."""
    row, matrix, bias = probe(shape)
    found = {
        size: result for size in SIZES if (result := _uniform(row, matrix, bias, size)) is not None
    }
    most = max(
        found.values(), key=lambda one: sum(torch.equal(one, other) for other in found.values())
    )
    return tuple(size for size, result in found.items() if torch.equal(result, most))


def _uniform(row: Tensor, matrix: Tensor, bias: Tensor | None, size: int) -> Tensor | None:
    """What every row of a block of equal rows becomes; None where they differ."""
    block = row.expand(*row.shape[:-2], size, row.shape[-1]).contiguous()
    result = multiplied(block, matrix, bias)
    first = result[..., :1, :]
    return first.clone() if torch.equal(result, first.expand_as(result)) else None


def probe(shape: Shape) -> tuple[Tensor, Tensor, Tensor | None]:
    """A row, a matrix and a bias of 0 whose products cancel out: what is left are rounding errors
    alone, and those differ where the order does, also when they are rounded to half precision."""
    random = torch.Generator().manual_seed(0)
    half = shape.k // 2

    def wide(*size: int) -> Tensor:
        numbers = torch.randn(*size, generator=random)
        return numbers * torch.randint(-3, 4, size, generator=random).exp2()

    order = torch.randperm(2 * half, generator=random)
    some = min(shape.n, DISTINCT)
    left, right = wide(half), wide(some, half)
    row = torch.zeros(1, shape.k)
    row[0, : 2 * half] = torch.cat((left, -left))[order]
    matrix = torch.ones(some, shape.k)
    matrix[:, : 2 * half] = torch.cat((right, right), dim=1)[:, order]
    row, matrix = row.to(shape.dtype), matrix.to(shape.dtype)
    matrix = matrix[torch.arange(shape.n) % some]
    bias = matrix.new_zeros(shape.n) if shape.biased else None
    if not shape.by_rows:
        matrix = matrix.T.contiguous().T
    if shape.batch is None:
        return row, matrix, bias
    return row.expand(shape.batch, 1, -1), _repeated(matrix, shape), bias


def _repeated(matrix: Tensor, shape: Shape) -> Tensor:
    assert shape.batch is not None
    if shape.by_rows:
        return matrix.expand(shape.batch, -1, -1).contiguous()
    return matrix.T.expand(shape.batch, -1, -1).contiguous().transpose(1, 2)
