"""Checkpoints of which some matrices are quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from penstock_kernels.weight import Weight
from penstock_quantization.dense import DenseReader
from penstock_quantization.matrix import MatrixSpec, Slice


def read_mixed(
    spec: MatrixSpec,
    is_quantised: Callable[[Slice], bool],
    quantised: Callable[[MatrixSpec], Weight | None],
    dense: DenseReader,
) -> Weight:
    """Matrices that were left in half precision are read as they are; one that is joined of both
    kinds, or of parts that `quantised` cannot join (None), becomes half precision."""
    kinds = [is_quantised(part) for part in spec.slices]
    if not any(kinds):
        return dense.read(spec)
    if all(kinds) and (weight := quantised(spec)) is not None:
        return weight
    read = []
    for part, kind in zip(spec.slices, kinds, strict=True):
        alone = replace(spec, slices=(part,), bias=False)
        weight = quantised(alone) if kind else dense.read(alone)
        assert weight is not None
        read.append(weight.dequantised().to(dense.dtype))
    return Weight(torch.cat(read), dense.bias(spec))
