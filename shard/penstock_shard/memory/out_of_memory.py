"""Memory that ran out: which errors say so, and what can be given back before the next step."""

from __future__ import annotations

import gc

import torch

# torch has no type for a CPU's: a RuntimeError of its allocator.
CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, and nothing else. What CUDA reports about a kernel is none."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)


def give_back(device: torch.device) -> None:
    """What a failed step has left: tensors in cycles, and what the allocator keeps for reuse."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
