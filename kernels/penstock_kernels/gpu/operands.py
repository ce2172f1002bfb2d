"""A weight as kernels of products take it."""

from __future__ import annotations

from torch import Tensor

from penstock_kernels.weight import Layout, Weight


def operands(weight: Weight, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and bias. What the weight lacks is not read: any tensor stands in its place."""
    scale, bias = weight.scale, weight.bias
    return x if scale is None else scale, x if bias is None else bias


def kinds(weight: Weight) -> dict[str, bool]:
    """What a kernel must know when it is compiled: whether to add a bias, and whether to widen
    numbers in FP8 and multiply with their scale."""
    return {"BIASED": weight.bias is not None, "WIDENED": weight.layout is Layout.FP8}
