"""What warmup sets aside for sampling is enough for whatever a batch asks."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from penstock_kernels.reference.device import TorchSampler
from penstock_shard.sampling.rehearsal import rehearse
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.limits import ShardLimits
from support.shard_driver import neutral

LIMITS = ShardLimits(
    max_prefill_tokens=8,
    max_slots=6,
    max_sequence_length=64,
    max_top_n=5,
    vocab_size=4000,
    block_size=8,
    num_blocks=9,
)
ASKED: list[dict[str, Any]] = [
    {"logprobs": True, "top_n": 5},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 50},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "typical_p": 0.9},
    {"temperature": 1.0, "min_p": 0.1},
    {"repetition_penalty": 1.1, "presence_penalty": 0.5},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 9, "typical_p": 0.9, "logprobs": True},
]


class Memory(TorchDispatchMode):
    """Bytes of the tensors made in its scope: how many live, and the most that did at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._count(storage.nbytes())
            weakref.finalize(storage, self._count, -storage.nbytes())

    def _count(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)


def peak_of(asked: list[dict[str, Any]]) -> int:
    """Bytes at most while a row of every slot is sampled, slot i as asked[i % len(asked)] says."""
    state = SamplingState(LIMITS, torch.device("cpu"), TorchSampler())
    slots = np.arange(LIMITS.max_slots)
    for slot in slots.tolist():
        wanted = neutral(**asked[slot % len(asked)])
        state.admit(slot, np.zeros(3, np.int32), 1, wanted)
    state.load(slots)
    plan = state.plan(slots)
    with Memory() as memory:
        logits = torch.randn(LIMITS.max_slots, LIMITS.vocab_size)
        state.sample(logits, plan)
    return memory.peak


@pytest.mark.parametrize("asked", [*([one] for one in ASKED), ASKED], ids=str)
def test_no_batch_takes_more_memory_than_the_rehearsal(asked: list[dict[str, Any]]) -> None:
    state = SamplingState(LIMITS, torch.device("cpu"), TorchSampler())
    with Memory() as rehearsal:
        rehearse(state, torch.bfloat16)
    logits = LIMITS.max_slots * LIMITS.vocab_size * 4
    assert logits < peak_of(asked) <= rehearsal.peak < 20 * logits
