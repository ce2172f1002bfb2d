"""Sums over the ranks of one host through memory that all of them map.

Every rank leaves its part where the others find it, and each adds all parts up itself. A decode
step of 8B sums 64 small tensors, and each of those is added to the residual and normalised:
`MappedRows` does all of that in one kernel. `SymmetricSums` is torch's "one shot" for any small
tensor: on two H200 7 us, through NCCL 21 us (bfloat16, 1 to 8 rows of 4096). Larger tensors are
left to NCCL, which moves each byte fewer times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from penstock_kernels.ops import Norm
from penstock_kernels.reference.norm import add_norm
from penstock_shard import log

LARGEST = 512 << 10  # bytes: 64 rows of 4096; at twice as much NCCL is as fast
ALIGNMENT = 16  # bytes, of what the kernel moves at once
DTYPES = (torch.bfloat16, torch.float32)  # that torch's kernel adds
TRIALS = 4  # sums that are tried: an inbox that was not emptied shows when its turn comes again
TRIAL_EPS = 1e-5


class _Tried(Protocol):
    def fault(self) -> str | None: ...


Made = TypeVar("Made", bound=_Tried)
AddRmsNorm = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # part, residual, weight, eps


class SymmetricSums:
    """The mapped memory of one rank. Made by all ranks at the same time."""

    def __init__(self, device: torch.device) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory

        group = dist.group.WORLD
        assert group is not None, "the ranks have met"
        self._group = group.group_name
        self._memory = symmetric_memory.empty(LARGEST, dtype=torch.uint8, device=device)
        symmetric_memory.rendezvous(self._memory, group=self._group)

    def supports(self, x: Tensor) -> bool:
        """Whether x is small enough and of a dtype that can be added, the same on every rank."""
        fits = 0 < x.nbytes <= LARGEST and x.nbytes % ALIGNMENT == 0
        return fits and x.dtype in DTYPES and x.is_contiguous()

    def sum(self, x: Tensor) -> Tensor:
        """The sum of the ranks' x, in a new tensor."""
        memory = self._memory[: x.nbytes].view(x.dtype)
        out = torch.ops.symm_mem.one_shot_all_reduce_copy(memory, x.view(-1), "sum", self._group)
        return out.view_as(x)  # type: ignore[no-any-return]

    def fault(self) -> str | None:
        """What is wrong with the sum of known numbers; None: nothing. A collective."""
        probe, world = torch.ones(ALIGNMENT, device=self._memory.device), dist.get_world_size()
        found = self.sum(probe)
        return None if bool((found == world).all()) else f"{found.tolist()} are not {world} each"


class MappedRows:
    """Inboxes that all ranks map, for rows of one width. Made by all ranks at the same time."""

    def __init__(
        self, device: torch.device, width: int, dtype: torch.dtype, dependent: bool
    ) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory

        from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
        from penstock_kernels.gpu.ranks import rank_sum

        group = dist.group.WORLD
        assert group is not None, "the ranks have met"
        shape, bits = rank_sum.inbox_shape(width, group.size()), rank_sum.bits_of(dtype)
        own = symmetric_memory.empty(shape, dtype=bits, device=device)
        own.fill_(rank_sum.empty_of(dtype))
        mapped = symmetric_memory.rendezvous(own, group=group.group_name)
        every = tuple(mapped.get_buffer(rank, shape, bits) for rank in range(group.size()))
        turns = torch.zeros(shape[2], dtype=torch.int32, device=device)
        self._own, self._mapped = own, mapped  # as long as they live, so do the mappings
        self.inboxes = rank_sum.Inboxes(group.rank(), dtype, every, turns)
        self._function = rank_sum.sum_add_rms_norm
        self.dependent = dependent and supports_dependent_launch(device)

    def supports(self, x: Tensor) -> bool:
        """Whether x [n, d] is rows of the model, and few enough; the same on every rank."""
        return self.inboxes.supports(x)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `rank_sum.sum_add_rms_norm`."""
        return self._function(x, self.inboxes, residual, weight, eps, self.dependent)

    def fault(self) -> str | None:
        """What is wrong with sums of known rows; None: nothing. A collective."""
        inboxes = self.inboxes
        shape = (len(inboxes.turns), inboxes.every[0].shape[3])
        rows = torch.zeros(shape, dtype=inboxes.dtype, device=inboxes.turns.device)
        return fault_of(self.add_rms_norm, inboxes.rank, len(inboxes.every), rows)


def fault_of(total: AddRmsNorm, rank: int, world_size: int, zeros: Tensor) -> str | None:
    """How `total` differs from a sum over ranks, residual and norm; None: not at all. A collective.

    Sums of small whole numbers must be exact. Norms may differ by two roundings: GPUs divide and
    take roots approximately, so that in float32 not even 3 / sqrt(9) is always 1.
    zeros: [rows, d], of the dtype and as many as are to be tried.
    """
    weight = torch.full_like(zeros[0], 2)
    tolerance = 2 * torch.finfo(zeros.dtype).eps
    faults = []
    for trial in range(TRIALS):  # all of them, whatever is found: the other ranks wait for it
        parts = [trial_rows(source + trial, zeros) for source in range(world_size)]
        residual, exact = zeros.clone(), zeros.clone()
        found = total(parts[rank], residual, weight, TRIAL_EPS)
        normed = add_norm(torch.stack(parts).sum(0), exact, Norm(weight, TRIAL_EPS))
        wrong = (residual != exact) | ~((found - normed).abs() <= tolerance * normed.abs())
        rows = wrong.any(dim=1).nonzero().flatten().tolist()
        if rows:
            faults.append(
                f"trial {trial}: {len(rows)} of {len(zeros)} rows are wrong, {rows[:8]} first; "
                f"sums differ by up to {float((residual - exact).abs().max()):g}, "
                f"norms by up to {float((found - normed).abs().max()):g}"
            )
    return "; ".join(faults) or None


def trial_rows(start: int, like: Tensor) -> Tensor:
    """Whole numbers from -4 to 4 that are shifted from row to row; zeros are negative."""
    rows, width = (torch.arange(n, device=like.device) for n in like.shape)
    return ((rows[:, None] + width + start) % 9 - 4).to(like.dtype).neg()


def symmetric_sums(device: torch.device) -> SymmetricSums | None:
    """None where some rank cannot map the others' memory. A collective."""
    return _on_every_rank(lambda: SymmetricSums(device), device)


def mapped_rows(
    device: torch.device, width: int, dtype: torch.dtype, dependent: bool
) -> MappedRows | None:
    """None where some rank cannot map the others' inboxes. A collective."""
    return _on_every_rank(lambda: MappedRows(device, width, dtype, dependent), device)


def _on_every_rank(make: Callable[[], Made], device: torch.device) -> Made | None:
    """What is made, where every rank can make it and it works on every rank."""
    made = _agreed(make, device)
    return None if made is None else _agreed(lambda: _tried(made), device)


def _tried(made: Made) -> Made:
    if fault := made.fault():
        raise RuntimeError(f"a sum is wrong: {fault}")
    return made


def _agreed(step: Callable[[], Made], device: torch.device) -> Made | None:
    """What a step returns, where no rank fails in it. None goes on before all are done with it."""
    result: Made | None = None
    problem = "another rank cannot"
    try:
        result = step()
    except Exception as error:  # a kernel that does not compile too: the others wait below
        problem = str(error) or type(error).__name__
    able = torch.tensor([int(result is not None)], device=device)
    dist.all_reduce(able, op=dist.ReduceOp.MIN)
    if not int(able):
        log.info(f"ranks do not sum through mapped memory: {problem}")
        return None
    return result
