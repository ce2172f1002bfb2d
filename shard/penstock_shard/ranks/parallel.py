"""Tensor parallelism: which part of each matrix a rank holds, and what the ranks say to each other.

Megatron's scheme (arXiv:1909.08053): matrices that open a block are split by output (columns),
those that close it by input (rows), so that a block needs one sum over the ranks. The vocabulary is
split for embedding and logits. Rank 0 alone samples and broadcasts the tokens, so that ranks cannot
diverge; most likely tokens all ranks find in the same numbers, if they share memory
(`mapped_outputs`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from penstock_kernels.ops import Activation, Norm, NormKind, Step
from penstock_kernels.weight import Weight
from penstock_shard.model.architecture import Architecture, check_split
from penstock_shard.ranks.network import interface_towards
from penstock_shard.ranks.symmetric import MappedRows, SymmetricSums, mapped_rows, symmetric_sums

# The router ends a group whose step is late long before this; it bounds a wait with no router.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks that serve one model together. With one rank, every method is free."""

    rank: int = 0
    world_size: int = 1
    small_sums: SymmetricSums | None = None
    rows: MappedRows | None = None

    def with_rows(
        self, device: torch.device, width: int, dtype: torch.dtype, dependent: bool
    ) -> Group:
        """The group that sums such rows through mapped memory, where it has any. A collective.

        dependent: launch kernels as `dependent` says.
        """
        if self.small_sums is None:
            return self
        return replace(self, rows=mapped_rows(device, width, dtype, dependent))

    def in_order(self) -> Group:
        """The group whose sums are the same whatever the number of rows."""
        return OrderedGroup(self.rank, self.world_size)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of x over the ranks; x itself may be overwritten."""
        if self.small_sums is not None and self.small_sums.supports(x):
            return self.small_sums.sum(x)
        if self.world_size > 1:
            dist.all_reduce(x)
        return x

    def add_norm(
        self, x: Tensor, residual: Tensor, norm: Norm | None, to: Weight | None, step: Step
    ) -> Activation:
        """`Step.add_norm` of the sum of x over the ranks; x may be overwritten."""
        by_rms = norm is not None and norm.kind is NormKind.RMS
        if self.rows is not None and norm is not None and by_rms and self.rows.supports(x):
            return Activation(self.rows.add_rms_norm(x, residual, norm.weight, norm.eps))
        return step.add_norm(self.all_reduce(x), residual, norm, to)

    def gather_columns(self, x: Tensor) -> Tensor | None:
        """Rank 0 gets the ranks' [n, d] side by side, [n, d * world_size]; the others None."""
        if self.world_size == 1:
            return x
        x = x.contiguous()
        if self.rank != 0:
            dist.gather(x, None, dst=0)
            return None
        parts = [torch.empty_like(x) for _ in range(self.world_size)]
        dist.gather(x, parts, dst=0)
        return torch.cat(parts, dim=1)

    def broadcast(self, x: Tensor) -> Tensor:
        """Every rank's x becomes that of rank 0, in place."""
        if self.world_size > 1:
            dist.broadcast(x, src=0)
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """Of each value the largest of all ranks; x itself may be overwritten."""
        if self.world_size > 1:
            dist.all_reduce(x, op=dist.ReduceOp.MAX)
        return x

    def mean(self, x: Tensor) -> Tensor:
        """The mean of x over the ranks; x itself may be overwritten."""
        return x if self.world_size == 1 else self.all_reduce(x).div_(self.world_size)

    def minimum(self, value: int, device: torch.device) -> int:
        """The smallest value of all ranks."""
        if self.world_size == 1:
            return value
        x = torch.tensor([value], dtype=torch.int64, device=device)
        dist.all_reduce(x, op=dist.ReduceOp.MIN)
        return int(x.item())


class OrderedGroup(Group):
    """Adds up in float32, in the order of the ranks. A library splits large tensors up and begins
    each part's sum with another rank, so an element's order would follow from its place."""

    def all_reduce(self, x: Tensor) -> Tensor:
        if self.world_size == 1:
            return x
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.world_size)]
        dist.all_gather(parts, x)
        first, *others = parts
        total = first.float()
        for other in others:
            total = total.add_(other)
        return total.to(x.dtype)


def join_group(environment: Mapping[str, str], socket_folder: Path, device: torch.device) -> Group:
    """Meet the other ranks: through a file, or at MASTER_ADDR where the operator named it.

    Without MASTER_ADDR all ranks are on this host, so the transports are bound to the loopback
    interface and nothing listens on a network.
    """
    rank = int(environment.get("RANK", "0"))
    world_size = int(environment.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK must be in [0, WORLD_SIZE), not {rank} of {world_size}")
    if world_size == 1:
        return Group()
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        method = "env://"
        if (interface := interface_towards(environment["MASTER_ADDR"])) is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    else:
        method = f"file://{socket_folder.absolute() / 'rendezvous'}"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ[name] = "lo"
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        init_method=method,
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    one_host = method.startswith("file")
    sums = symmetric_sums(device) if device.type == "cuda" and one_host else None
    return Group(rank, world_size, sums)


@dataclass(frozen=True, slots=True)
class Partition:
    """This rank's share of a model, as half-open ranges of the whole."""

    heads: range
    kv_heads: range  # ranks share a KV head when there are more ranks than KV heads
    mlp: range
    expert: range  # of each expert; empty where there are none
    shared: range  # of the MLP beside them
    vocabulary: range  # may reach beyond the vocabulary on the last ranks: padding

    @staticmethod
    def of(model: Architecture, group: Group) -> Partition:
        """Raises ValueError where the model cannot be split over so many ranks."""
        world = group.world_size
        check_split(model, world)
        experts = model.experts
        kv = max(model.num_kv_heads // world, 1)
        kv_start = group.rank * model.num_kv_heads // world
        columns = -(-model.vocab_size // world)
        return Partition(
            heads=_share(model.num_heads // world, group.rank),
            kv_heads=range(kv_start, kv_start + kv),
            mlp=_share(model.intermediate_size // world, group.rank),
            expert=_share((experts.inner if experts else 0) // world, group.rank),
            shared=_share(((experts.shared or 0) if experts else 0) // world, group.rank),
            vocabulary=_share(columns, group.rank),
        )


def _share(count: int, rank: int) -> range:
    return range(rank * count, (rank + 1) * count)
