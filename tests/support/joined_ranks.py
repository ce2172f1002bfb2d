"""Several ranks of a model in this process, a thread each: tensor parallelism without processes.

tokens = joined_ranks(folder, 2, lambda shard: work(shard))     what rank 0 got
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from penstock_proto import shard_pb2
from penstock_quantization.kv_scheme import AUTO, NAMES
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.checkpoint import Checkpoint
from penstock_shard.weights.load_weights import load_decoder
from penstock_shard.weights.loaded_model import LoadedModel
from support.local_shard import LocalShard, load_model

SECONDS = 60
Result = TypeVar("Result")


@dataclass
class _Meeting:
    """Where the threads exchange tensors."""

    barrier: threading.Barrier
    tensors: list[Tensor] = field(default_factory=list)
    results: list[shard_pb2.StepResult] = field(default_factory=list)  # of rank 0


@dataclass(frozen=True)
class ThreadGroup(Group):
    """A group whose ranks are threads."""

    meeting: _Meeting | None = None

    def _all(self, x: Tensor) -> Tensor:
        """Every rank's x, [ranks, ...]."""
        assert self.meeting is not None
        self.meeting.tensors[self.rank] = x
        self.meeting.barrier.wait(SECONDS)
        parts = torch.stack(self.meeting.tensors)
        self.meeting.barrier.wait(SECONDS)
        return parts

    def all_reduce(self, x: Tensor) -> Tensor:
        return x.copy_(self._all(x).sum(0))

    def gather_columns(self, x: Tensor) -> Tensor | None:
        parts = self._all(x)
        return None if self.rank else torch.cat(list(parts), dim=1)

    def broadcast(self, x: Tensor) -> Tensor:
        return x.copy_(self._all(x)[0])

    def maximum(self, x: Tensor) -> Tensor:
        return x.copy_(self._all(x).amax(0))

    def minimum(self, value: int, device: torch.device) -> int:
        return int(self._all(torch.tensor(value)).min())


class JoinedShard(LocalShard):
    """One of the ranks. All see the results of rank 0, since the others have none."""

    def __init__(self, loaded: LoadedModel, meeting: _Meeting) -> None:
        super().__init__(loaded)
        self._rank, self._meeting = loaded.group.rank, meeting

    def run(self, **fields: Any) -> list[shard_pb2.StepResult]:
        results = super().run(**fields)
        if self._rank == 0:
            self._meeting.results = results
        self._meeting.barrier.wait(SECONDS)
        found = self._meeting.results
        self._meeting.barrier.wait(SECONDS)  # rank 0 may have others before all have seen these
        return found


def joined_ranks(
    folder: Path,
    world_size: int,
    work: Callable[[LocalShard], Result],
    quantize: str | None = None,
    **changes: Any,
) -> Result:
    """What `work` gives on rank 0; every rank does it at the same time. changes: of the shard's
    configuration."""
    meeting = _Meeting(threading.Barrier(world_size), [torch.empty(0)] * world_size)
    whole = load_model(folder, **changes)

    def rank(index: int) -> Result:
        try:
            group = ThreadGroup(index, world_size, meeting=meeting)
            decoder = load_decoder(
                whole.model,
                group,
                Checkpoint(folder, whole.model.family.names),
                whole.dtype,
                whole.device,
                quantize,
                NAMES.get(changes.get("kv_cache_dtype", AUTO), whole.model.kv_cache),
                changes.get("quantize_activations") is not None,
            )
            with torch.inference_mode():
                return work(JoinedShard(replace(whole, decoder=decoder, group=group), meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as threads:
        first, *_ = [threads.submit(rank, index) for index in range(world_size)]
        return first.result()
