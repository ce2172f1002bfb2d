"""The paged KV cache: its layout, and how many blocks memory holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from penstock_shard.model.decoder import Decoder

# A CPU's memory belongs to others too: the cache takes a quarter of what is free, unless the
# operator says how many tokens it must hold.
CPU_SHARE = 0.25
# Left free on a GPU for what the allocator and the libraries take outside of the measured peak, and
# for the decode graphs: their static logits and the activations of the largest one.
CUDA_RESERVE = 1536 << 20


def bytes_per_token(decoder: Decoder, dtype: torch.dtype) -> int:
    """KV bytes of a token on this rank, all layers."""
    return sum(2 * spec.kv_heads * spec.width for spec in decoder.specs()) * dtype.itemsize


def allocate(
    decoder: Decoder, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[layers, 2, kv_heads, blocks, block_size, width], zero.

    Zero, because a masked position must hold a number: 0 * NaN is NaN. On Linux a CPU's zeros take
    memory only once they are written.
    """
    specs = decoder.specs()
    shape = (len(specs), 2, specs[0].kv_heads, num_blocks, block_size, specs[0].width)
    return torch.zeros(shape, dtype=dtype, device=device)


def free_bytes(device: torch.device, memory_fraction: float, peak: int, world_size: int) -> int:
    """Bytes that the cache may take on this rank.

    peak: the most that a step held beside the cache, weights included (CUDA). Memory that other
    processes hold on the GPU counts as used.
    """
    if device.type == "cpu":
        return _available_host_bytes() // world_size
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    budget = int(total * memory_fraction) - (total - free - ours)
    return budget - peak - CUDA_RESERVE


def _available_host_bytes() -> int:
    """What Linux and the control group leave us."""
    available = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) << 10
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(int(limit) - used, 0))
