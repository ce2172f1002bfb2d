"""Products of dense weights as a server computes them."""

from __future__ import annotations

from torch import Tensor

from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.table import find
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Act, Activation
from penstock_kernels.weight import Weight

ROWS = TritonRows(dependent=True)


def served_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T. x: [rows, k]; weight: [n, k]."""
    return ROWS.linear(Activation(x), Weight(weight))


def served_gated(x: Tensor, weight: Tensor) -> Tensor:
    """silu(gate) * up of x W^T. weight: [2 n, k], gate first. Returns [rows, n]."""
    return ROWS.gated(Activation(x), Weight(weight), Act.SILU).x


def served_parts(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T, or where it is split [parts, rows, n] float32 to be added up."""
    rows, matrix = Activation(x), Weight(weight)
    if (launch := find(Epilogue.PARTIAL, rows, matrix)) is None:
        return ROWS.linear(rows, matrix)
    parts: Tensor = launch(rows, matrix, True)
    return parts
