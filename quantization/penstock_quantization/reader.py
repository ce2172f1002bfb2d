"""From the tensors of a checkpoint to the weights of a device.

A checkpoint format is a `Reader`: it alone knows how logical rows and columns stand in tensors.
"""

from __future__ import annotations

from typing import Protocol

import torch

from penstock_kernels.weight import Weight
from penstock_quantization.dense import DenseReader
from penstock_quantization.fp8 import Fp8Reader
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source


class Reader(Protocol):
    """Reads matrices of one format."""

    def read(self, spec: MatrixSpec) -> Weight:
        """Raises ValueError with a sentence for what is not there, or cannot be cut so."""


def reader_for(
    scheme: Scheme | None, source: Source, dtype: torch.dtype, device: torch.device
) -> Reader:
    """dtype: of weights that are not quantised, and of biases."""
    dense = DenseReader(source, dtype, device)
    return dense if scheme is None else Fp8Reader(scheme, source, dense)
