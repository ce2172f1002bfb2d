"""Outcome of captured steps of several ranks in memory that all of them map.

Each rank knows the most likely tokens by itself, and rank 0 has the logits for whatever it samples:
both from the kernels that would look for them anyway. NCCL takes two calls for that, of some 20 us
each, in whose shadow nothing else starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from penstock_kernels.ops import Activation, GraphDevice, Step
from penstock_shard.model.layers import VocabularyHead
from penstock_shard.steps.graphs import StepOutputs

if TYPE_CHECKING:  # Triton is not there on every host
    from penstock_kernels.gpu.ranks.rank_choice import Votes


@dataclass(slots=True)
class MappedOutputs(StepOutputs):
    """`logits` are rank 0's, on every rank: each writes its columns.

    Rank 0 may read them until it launches another step: before another rank writes them again it
    needs sums of that step from rank 0.
    """

    votes: Votes
    dependent: bool  # launch kernels as `dependent` says
    memory: tuple[object, ...]  # as long as it lives, so do the mappings

    def keep(
        self, hidden: Activation, head: VocabularyHead, step: Step, ops: GraphDevice
    ) -> Tensor:
        from penstock_kernels.gpu.ranks.rank_choice import argmax_over_ranks

        rows, part = len(hidden.x), head.part
        logits = head.local(hidden, step)[:, : len(part)]
        kept, token = self.logits[:rows, part.start : part.stop], self.token[:rows]
        argmax_over_ranks(logits, kept, token, part.start, self.votes, self.dependent)
        return token


def mapped_outputs(head: VocabularyHead, rows: int, dtype: torch.dtype) -> MappedOutputs | None:
    """For steps of so many rows, with logits of dtype; None where ranks do not share memory. A
    collective."""
    group, columns = head.group, head.weight.n
    if group.rows is None or columns * (group.world_size - 1) >= head.vocab_size:
        return None
    import torch.distributed._symmetric_memory as symmetric_memory

    from penstock_kernels.gpu.ranks.rank_choice import EMPTY, Votes
    from penstock_kernels.gpu.ranks.rank_sum import TURNS

    world = dist.group.WORLD
    assert world is not None, "the ranks have met"
    device, name = head.weight.device, world.group_name
    shape = (rows, head.vocab_size)
    logits = symmetric_memory.empty(shape, dtype=dtype, device=device)
    first = symmetric_memory.rendezvous(logits, group=name)
    boxes = (TURNS, group.world_size, rows)
    votes = symmetric_memory.empty(boxes, dtype=torch.int64, device=device)
    votes.fill_(EMPTY)
    second = symmetric_memory.rendezvous(votes, group=name)
    every = tuple(second.get_buffer(r, boxes, torch.int64) for r in range(group.world_size))
    turns = torch.zeros(rows, dtype=torch.int32, device=device)
    group.minimum(0, device)  # no rank votes before all are empty
    return MappedOutputs(
        token=torch.zeros(rows, dtype=torch.int64, device=device),
        logits=first.get_buffer(0, shape, dtype),
        everywhere=True,
        votes=Votes(group.rank, every, turns),
        dependent=group.rows.dependent,
        memory=(logits, first, votes, second),
    )
