"""Which weights are multiplied with rows in FP8, where `--quantize-activations fp8` asks for it.

Those in whole numbers of 4 bits, but for experts. Less what stands for 0 such a number is exact in
FP8, so only the rows lose by it. Where a weight cannot be, the model is refused.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from penstock_kernels.int4 import PRODUCT
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.activations import SMALLEST_GROUP
from penstock_quantization.matrix import MatrixSpec
from penstock_shard.model.decoder import Decoder
from penstock_shard.model.layers import Mlp

OPTION = "--quantize-activations fp8"
OLDEST = (8, 9)  # compute capability with tensor cores for FP8


def with_fp8_rows(weight: Weight, spec: MatrixSpec) -> Weight:
    """The weight of a matrix, to be multiplied so if it is one of those. Raises ValueError."""
    if weight.layout is not Layout.INT4:
        return weight
    name = spec.slices[-1].name
    columns = weight.k if weight.order is None else len(weight.order)
    if weight.scale_columns < SMALLEST_GROUP:
        raise ValueError(
            f"{name} has groups of {weight.scale_columns} inputs on a shard, and {OPTION} needs "
            f"{SMALLEST_GROUP} or more: choose another --num-shard, or leave it out"
        )
    if columns % PRODUCT:
        raise ValueError(
            f"{name} has {columns} inputs on a shard, and {OPTION} needs a multiple of {PRODUCT}"
        )
    return replace(weight, fp8_rows=True)


def check_any(decoder: Decoder) -> None:
    """Raises ValueError where no weight is multiplied so."""
    for block in decoder.blocks:
        weights = [block.attention.qkv, block.attention.output.weight]
        if isinstance(block.mlp, Mlp):
            weights += [block.mlp.up, block.mlp.down.weight]
        if any(weight.fp8_rows for weight in weights):
            return
    raise ValueError(
        f"{OPTION} is for 4-bit matrices beside experts, and this model has none: leave it out"
    )


def check_device(device: torch.device, dtype: torch.dtype) -> None:
    """Raises ValueError where a GPU does not compute so."""
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        found, oldest = (".".join(map(str, version)) for version in (capability, OLDEST))
        raise ValueError(
            f"{OPTION} needs a GPU with FP8, of compute capability {oldest}: "
            f"{torch.cuda.get_device_name(device)} has {found}"
        )
    if dtype == torch.float32:
        raise ValueError(f"{OPTION} needs --dtype bfloat16 or float16 on a GPU, not float32")
