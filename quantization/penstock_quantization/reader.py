"""From the tensors of a checkpoint to the weights of a device.

A checkpoint format is a `Reader`: it alone knows how logical rows and columns stand in tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from penstock_kernels.weight import Weight
from penstock_quantization.bitsandbytes import BitsAndBytes
from penstock_quantization.dense import DenseReader
from penstock_quantization.fp4 import NAMES, Fp4
from penstock_quantization.fp8 import Fp8Reader
from penstock_quantization.integer_reader import FORMATS as INTEGER_FORMATS
from penstock_quantization.integer_reader import IntegerReader
from penstock_quantization.lut import LutFormat, LutReader
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source
from penstock_quantization.squeezellm import SqueezeLlm
from penstock_quantization.torchao import Fp8Names


class Reader(Protocol):
    """Reads matrices of one format."""

    def read(self, spec: MatrixSpec) -> Weight:
        """Raises ValueError with a sentence for what is not there, or cannot be cut so."""


# By `Scheme.stored`.
LUT_FORMATS: dict[str, Callable[[Scheme, Source, torch.device], LutFormat]] = {
    "bitsandbytes": BitsAndBytes,
    "squeezellm": SqueezeLlm,
    **dict.fromkeys(NAMES, Fp4),
}


def reader_for(
    scheme: Scheme | None, source: Source, dtype: torch.dtype, device: torch.device
) -> Reader:
    """dtype: of weights that are not quantised, and of biases."""
    dense = DenseReader(source, dtype, device)
    if scheme is None:
        return dense
    if scheme.stored in LUT_FORMATS:
        return LutReader(LUT_FORMATS[scheme.stored](scheme, source, device), dense)
    if scheme.stored in INTEGER_FORMATS:
        return IntegerReader(scheme, source, dense)
    if scheme.stored == "torchao-fp8":
        dense = DenseReader(Fp8Names(source), dtype, device)
    return Fp8Reader(scheme, dense.source, dense)
