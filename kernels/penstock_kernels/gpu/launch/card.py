"""What the portable kernels ask of a card; kept, since a launch is slow enough.

A tensor in the host's memory is the interpreter's: it stands for the largest of cards.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

INTERPRETED = 227 << 10  # bytes


@functools.cache
def shared_bytes(device: torch.device) -> int:
    """Shared memory that one program may have."""
    if device.type != "cuda":
        return INTERPRETED
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


@functools.cache
def has_tensor_cores(device: torch.device) -> bool:
    """Whether Triton multiplies matrices on tensor cores there: it no longer does on Turing."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def converts_fp8(device: torch.device) -> bool:
    """Whether the card has instructions from and to FP8. The interpreter's are not exact."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


@functools.cache
def has_fp8(device: torch.device) -> bool:
    """Whether kernels can read e4m3, and tensor cores multiply it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 9)


@functools.cache
def multiplies_pairs(device: torch.device) -> bool:
    """Whether one instruction multiplies two numbers of bfloat16. The interpreter has none."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
