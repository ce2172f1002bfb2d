"""Prints which kernels of sampling would be compiled while a server serves, one a line.

python -m support.late_compiles SLOTS {graphs,eager}

Kernels are not compiled: Triton's own keys of its caches for an H100 say whether they would be.
Needs TRITON_INTERPRET unset.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from penstock_kernels.gpu.sampling.sampler import TritonSampler
from penstock_shard.sampling.rehearsal import rehearse_draws
from penstock_shard.sampling.sample_graphs import SampleGraphs
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.limits import ShardLimits
from support.local_shard import Eager
from support.shard_driver import neutral

VOCABULARY = 512
WANTED: list[dict[str, float]] = [
    {"temperature": 1.0},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_k": 5, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.1},
]
PENALTY = {"repetition_penalty": 1.1}
compiled: list[str] = []


class Driver:
    """As much of a driver as choosing a variant of a kernel needs."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compile_nothing(self: Any, key: Any, *arguments: Any) -> object:
    """In place of a compilation: remembered, and found in the cache from then on."""
    compiled.append(self.fn.__name__)
    kernel = self.device_caches[0][0][key] = object()
    return kernel


def main() -> None:
    slots, graphs = int(sys.argv[1]), sys.argv[2] == "graphs"
    triton.runtime.driver.set_active(Driver())  # type: ignore[no-untyped-call]
    JITFunction._do_compile = compile_nothing
    JITFunction.__getitem__ = lambda kernel, grid: functools.partial(
        kernel.run, grid=grid, warmup=True
    )
    limits = ShardLimits(
        max_prefill_tokens=8, max_slots=slots, max_sequence_length=64, max_top_n=5,
        vocab_size=VOCABULARY, block_size=8, num_blocks=9,
    )  # fmt: skip
    sampler = TritonSampler(dependent=True)
    state = SamplingState(limits, torch.device("cpu"), sampler)
    standing = torch.zeros(slots, VOCABULARY, dtype=torch.bfloat16)
    drawn = None
    if graphs:
        drawn = SampleGraphs(state, sampler, standing)
        drawn.capture(Eager)
        for draw in drawn._graphs.values():
            draw.replay()
    rehearse_draws(state, torch.bfloat16)
    at_start = len(compiled)
    assert at_start > 5, compiled
    for wanted in [*WANTED, *(wanted | PENALTY for wanted in WANTED), PENALTY]:
        for count in (1, 2, 3, 16, slots):
            rows = np.arange(count)
            for slot in rows.tolist():
                state.admit(slot, np.zeros(1, np.int32), 0, neutral(**wanted))
            state.load(rows)
            for part in state.plan(rows).parts:
                state.chosen(standing[:count], part, drawn)
    print("\n".join(compiled[at_start:]))


if __name__ == "__main__":
    main()
