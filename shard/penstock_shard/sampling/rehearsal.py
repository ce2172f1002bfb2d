"""Sampling before there are sequences: what it takes of memory, and kernels that are compiled."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from penstock_proto import shard_pb2
from penstock_shard.grammars.matching import Constraint
from penstock_shard.sampling.plan import SamplingPlan
from penstock_shard.sampling.sampling import SamplingState


def rehearse(state: SamplingState, dtype: torch.dtype) -> None:
    """Sample a row of every slot with all that can be asked: sampling never takes more memory.

    Some 14 copies of the logits in float32: 1.8 GiB for 256 rows of 128k. dtype: of a model's
    logits. The slots must be free.
    """
    rehearse_draws(state, dtype)
    everything = shard_pb2.Sampling(
        temperature=1, top_p=0.5, typical_p=0.5, min_p=0.5, repetition_penalty=2,
        frequency_penalty=1, logprobs=True,
        logit_bias=shard_pb2.LogitBias(token=[0], value=[1]),
        top_n=state.limits.max_top_n, rules=shard_pb2.TokenRules(
            allowed=bytes(4), late=[1], min_tokens=1, green_share=0.5, green_bias=1
        ),
    )  # fmt: skip
    logits, plan = _batch(state, everything, state.limits.max_slots, torch.float32, held=True)
    state.sample(logits, plan)


def rehearse_draws(state: SamplingState, dtype: torch.dtype) -> None:
    """Launch the kernels of rows that are drawn, so that they are compiled. Nothing reads the
    tokens: where kernels are only compiled, nobody has written them."""
    for penalty, top_p, held in itertools.product((1, 2), (0.5, 1), (False, True)):
        wanted = shard_pb2.Sampling(
            temperature=1, top_p=top_p, typical_p=1, repetition_penalty=penalty
        )
        logits, plan = _batch(state, wanted, 1, dtype, held)
        for part in plan.parts:
            state.tokens(logits, part)


def _batch(
    state: SamplingState,
    wanted: shard_pb2.Sampling,
    count: int,
    dtype: torch.dtype,
    held: bool,
) -> tuple[Tensor, SamplingPlan]:
    """Logits for so many slots, and the plan when all want the same. held: by grammars, that
    allow all."""
    slots = np.arange(count)
    for slot in slots.tolist():
        constraint = Constraint(slot) if held else None
        state.admit(slot, np.zeros(1, np.int32), 0, wanted, constraint)
        state.bits.allow_all(slot)
    state.load(slots)
    logits = torch.zeros(len(slots), state.limits.vocab_size, device=state.device, dtype=dtype)
    return logits, state.plan(slots)
