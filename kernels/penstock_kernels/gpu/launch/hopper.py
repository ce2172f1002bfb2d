"""What the kernels for Hopper ask of a card and of tensors; kept, since a launch is slow enough."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@functools.cache
def is_hopper(device: torch.device) -> bool:
    """Whether the device has Hopper's asynchronous products and copies."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """As many programs run at once."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def supports_half(x: Tensor) -> bool:
    """Whether the card and the dtype are those of the kernels for Hopper."""
    return x.dtype in (torch.bfloat16, torch.float16) and is_hopper(x.device)


def tma_descriptor(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A dense matrix in half precision or FP8, to be copied in tiles of [rows, columns]."""
    return TensorDescriptor.from_tensor(x, [rows, columns], tile_layout(rows, columns, x.dtype))


@functools.cache
def tile_layout(rows: int, columns: int, dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """How such a tile stands in shared memory."""
    element = gl.float16 if dtype.itemsize == 2 else gl.float8e4nv
    return gl.NVMMASharedLayout.get_default_for([rows, columns], element)


@gluon.jit
def wait(PDL: gl.constexpr):
    """`dependent.wait` of kernels in Gluon."""
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
