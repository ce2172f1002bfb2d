"""The paged KV cache: its layout, and how many blocks memory holds."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from penstock_shard.model.decoder import Decoder

# A CPU's memory belongs to others too: the cache takes a quarter of what is free, unless the
# operator says how many tokens it must hold.
CPU_SHARE = 0.25
# Left free on a GPU for what nobody could measure before: kernels that are loaded later, pieces
# that the allocator cannot use, graphs that take more than others of their kind.
CUDA_RESERVE = 512 << 20
GROUP = Path("/sys/fs/cgroup")


def cache_dtype(decoder: Decoder) -> torch.dtype:
    """Of all layers."""
    [dtype] = {spec.cache.dtype or decoder.dtype for spec in decoder.specs()}
    return dtype


def bytes_per_token(decoder: Decoder) -> int:
    """KV bytes of a token on this rank, all layers."""
    numbers = sum(2 * spec.kv_heads * spec.width for spec in decoder.specs())
    return numbers * cache_dtype(decoder).itemsize


def allocate(decoder: Decoder, num_blocks: int, block_size: int, device: torch.device) -> Tensor:
    """[layers, 2, kv_heads, blocks, block_size, width], zero.

    Zero, because a masked position must hold a number: 0 * NaN is NaN. On Linux a CPU's zeros take
    memory only once they are written.
    """
    specs = decoder.specs()
    shape = (len(specs), 2, specs[0].kv_heads, num_blocks, block_size, specs[0].width)
    return torch.zeros(shape, dtype=cache_dtype(decoder), device=device)


@dataclass(frozen=True, slots=True)
class Shares:
    """What the operator lets a rank have."""

    fraction: float = 1.0  # of a GPU's memory
    kv_cache: int | None = None  # bytes of the cache; None: what is left
    leave_free: int | None = None  # bytes of a GPU, or of the host, for others


def free_bytes(device: torch.device, shares: Shares, world_size: int, to_come: int) -> int:
    """Bytes that the cache may take on this rank, in what nobody uses now.

    to_come: of a GPU, what else is going to be taken, less what is going to be given back.
    """
    if device.type == "cpu":
        return (_available_host_bytes() - (shares.leave_free or 0)) // world_size
    return left_bytes(device, shares) - to_come - CUDA_RESERVE


def left_bytes(device: torch.device, shares: Shares) -> int:
    """Bytes of a GPU that nobody uses and that a rank may have; negative where it has too many."""
    free, total = torch.cuda.mem_get_info(device)
    return min(int(total * shares.fraction), total - (shares.leave_free or 0)) - (total - free)


def total_bytes(device: torch.device, world_size: int) -> int:
    """Bytes that a rank could have if nothing else used any."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(installed, _group_limit())) // world_size


def used_bytes(device: torch.device) -> int:
    """Bytes of a GPU that anybody uses; of a CPU's memory those of this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _available_host_bytes() -> int:
    """What Linux and the control group leave us."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) << 10
    try:
        used = int((GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return int(min(available, max(_group_limit() - used, 0)))


def _group_limit() -> float:
    """Bytes that the control group may have; infinity where it has no limit."""
    try:
        return float((GROUP / "memory.max").read_text().strip().replace("max", "inf"))
    except (OSError, ValueError):
        return math.inf
