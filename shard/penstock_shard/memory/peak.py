"""What is taken of a GPU: now, and at the most for as long as something runs."""

from __future__ import annotations

from typing import Self

import torch

from penstock_shard.memory import kv_cache
from penstock_shard.memory.out_of_memory import give_back


def held_bytes(device: torch.device) -> int:
    """Bytes of a GPU that this process holds through torch; 0 on a CPU."""
    return int(torch.cuda.memory_reserved(device)) if device.type == "cuda" else 0


def settled_bytes(device: torch.device) -> int:
    """Bytes of a GPU that anybody uses, without those that torch keeps for reuse."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    return kv_cache.used_bytes(device)


class Peak:
    """Within a `with`: what torch's allocator takes, beyond what is kept when it ends.

    What it takes, not what tensors fill of it: pieces in between are lost to others too.
    """

    size = 0  # bytes, known at the end; 0 on a CPU

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            give_back(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            most = torch.cuda.max_memory_reserved(self._device)
            give_back(self._device)
            self.size = max(0, most - held_bytes(self._device))
