"""A shard's runner inside the test's process: commands in, results out, no gRPC.

shard = LocalShard(model_folder)
shard.start(0, [1, 2, 3])          admit and compute the prompt: its first token
shard.decode([0], 5)               five more
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock_proto import shard_pb2
from penstock_shard.config import ShardConfig
from penstock_shard.memory.warmup import warm_up
from penstock_shard.steps.graphs import GraphSizes
from penstock_shard.weights.loaded_model import LoadedModel, load
from support.shard_driver import admission, shard_config


def load_model(folder: Path, **changes: Any) -> LoadedModel:
    """A model on the CPU in float32, as one rank."""
    return load(ShardConfig(**shard_config(folder, folder, **changes)))


class LocalShard:
    """Each slot owns scattered blocks for sequences of the longest length."""

    def __init__(self, loaded: LoadedModel, **changes: int) -> None:
        sizes = {
            "max_prefill_tokens": 64,
            "max_slots": 6,
            "max_sequence_length": 96,
            "max_batch_total_tokens": 1024,
            "max_top_n": 5,
        }
        self.runner, self.warmup = warm_up(loaded, shard_pb2.WarmupRequest(**(sizes | changes)))
        limits = self.runner.limits
        order = np.random.default_rng(0).permutation(np.arange(1, limits.num_blocks))
        width = limits.table_width
        self.blocks = [
            order[slot * width : (slot + 1) * width].tolist() for slot in range(limits.max_slots)
        ]
        self._step = 1

    def run(self, **fields: Any) -> list[shard_pb2.StepResult]:
        """One command; `step` is filled in. Returns the result of each of its steps."""
        fields.setdefault("repeat", 1)
        command = shard_pb2.StepCommand(step=self._step, **fields)
        self._step += command.repeat
        return [pending.build() for pending in self.runner.execute(command)]

    def admission(
        self,
        slot: int,
        tokens: Sequence[int],
        sampling: shard_pb2.Sampling | None = None,
        **fields: Any,
    ) -> shard_pb2.Admission:
        """With the slot's own blocks."""
        return admission(slot, tokens, self.blocks[slot], sampling, **fields)

    def start(
        self,
        slot: int,
        tokens: Sequence[int],
        sampling: shard_pb2.Sampling | None = None,
        **fields: Any,
    ) -> int:
        """Admit a sequence and compute its prompt in one step, nothing else decoding."""
        [result] = self.run(
            admit=[self.admission(slot, tokens, sampling, **fields)],
            chunk_slot=[slot],
            chunk_length=[len(tokens) - fields.get("cached", 0)],
            decode_changed=True,
        )
        return int(result.token[0])

    def decode(self, slots: Sequence[int], count: int, repeat: int = 1) -> list[list[int]]:
        """`count` tokens of each slot, in commands of `repeat` steps."""
        rows = []
        for first in range(0, count, repeat):
            results = self.run(
                decode_changed=first == 0,
                decode=slots if first == 0 else [],
                repeat=min(repeat, count - first),
            )
            rows += [result.token for result in results]
        return [[row[i] for row in rows] for i in range(len(slots))]

    def release(self, *slots: int) -> None:
        """Give slots up; nothing decodes after that."""
        self.run(release=slots, decode_changed=True)


@dataclass
class Eager:
    """Stands for a graph where there is no CUDA: the same step, run again."""

    step: Callable[[], None]

    def replay(self) -> None:
        self.step()


def interpret(shard: LocalShard, loaded: LoadedModel, sizes: tuple[int, ...]) -> LocalShard:
    """From here on its steps are those of the graphs, by Triton's kernels."""
    from penstock_kernels.gpu.device import TritonDevice
    from penstock_kernels.gpu.invariant_device import InvariantTritonDevice
    from penstock_kernels.gpu.sampling.sampler import TritonSampler

    runner, model, limits = shard.runner, loaded.decoder, shard.runner.limits
    ropes = model.rope_tables(limits.table_width * limits.block_size, runner.device)
    device = InvariantTritonDevice if loaded.deterministic else TritonDevice
    runner.ops = device(model.specs(), ropes, limits.max_slots, dtype=loaded.dtype)
    runner.sampler = TritonSampler(rows_alone=loaded.deterministic)
    runner.capture_graphs(GraphSizes(sizes), Eager)
    return shard
