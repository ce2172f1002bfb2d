"""Which numbers of which tensors make up a matrix: what a family asks a reader for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slice:
    """Some output rows of a matrix: `rows` of the `total` rows of the tensor `name`."""

    name: str
    rows: range
    total: int


@dataclass(frozen=True, slots=True)
class MatrixSpec:
    """Slices below one another. A part of the columns only where the slices are whole."""

    slices: tuple[Slice, ...]
    columns: range
    inputs: int  # columns of the whole
    bias: bool
    transposed: bool  # the tensors are stored [inputs, outputs]

    @property
    def outputs(self) -> int:
        return sum(len(part.rows) for part in self.slices)

    @property
    def is_row_parallel(self) -> bool:
        """Whether ranks may hold different columns, so that their products are summed."""
        return len(self.columns) < self.inputs
