"""Sums over the ranks of one host through memory that all of them map.

"One shot": every rank leaves its part where the others can read it, and each adds all parts up
itself. A decode step sums 64 small tensors; on two H200 each takes 21 us through NCCL and 7 us this
way (bfloat16, 1 to 8 rows of 4096). Larger tensors are left to NCCL, which moves each byte fewer
times.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from penstock_shard import log

LARGEST = 512 << 10  # bytes: 64 rows of 4096; at twice as much NCCL is as fast
ALIGNMENT = 16  # bytes, of what the kernel moves at once
DTYPES = (torch.bfloat16, torch.float32)  # that torch's kernel adds


class SymmetricSums:
    """The mapped memory of one rank. Made by all ranks at the same time."""

    def __init__(self, device: torch.device) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory

        group = dist.group.WORLD
        assert group is not None, "the ranks have met"
        self._group = group.group_name
        self._memory = symmetric_memory.empty(LARGEST, dtype=torch.uint8, device=device)
        symmetric_memory.rendezvous(self._memory, group=self._group)

    def takes(self, x: Tensor) -> bool:
        """Whether x is small enough and of a dtype that can be added, the same on every rank."""
        fits = 0 < x.nbytes <= LARGEST and x.nbytes % ALIGNMENT == 0
        return fits and x.dtype in DTYPES and x.is_contiguous()

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the ranks' x, in a new tensor."""
        memory = self._memory[: x.nbytes].view(x.dtype)
        out = torch.ops.symm_mem.one_shot_all_reduce_copy(memory, x.view(-1), "sum", self._group)
        return out.view_as(x)  # type: ignore[no-any-return]


def symmetric_sums(device: torch.device) -> SymmetricSums | None:
    """None where some rank cannot map the others' memory. A collective."""
    sums: SymmetricSums | None = None
    problem = "it adds wrongly"
    try:
        made = SymmetricSums(device)
        probe = torch.ones(ALIGNMENT, device=device)
        if int(made.sum(probe).sum()) == ALIGNMENT * dist.get_world_size():
            sums = made
    except (RuntimeError, ImportError, AttributeError) as error:
        problem = str(error)
    able = torch.tensor([int(sums is not None)], device=device)
    dist.all_reduce(able, op=dist.ReduceOp.MIN)
    if not int(able):
        log.info(f"sums over ranks go through NCCL: no symmetric memory on some rank ({problem})")
        return None
    return sums
